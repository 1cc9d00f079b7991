package firewall_test

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall/porttest"
)

// The words of porttest, as tests have many of them.
var addrs, tcp, at, upTo, from = porttest.Addrs, porttest.TCP, porttest.At, porttest.UpTo, porttest.From

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
