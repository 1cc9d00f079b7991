package ruleset

import (
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/porttest"
)

var both = firewall.Families{IPv4: true, IPv6: true}

// The words of porttest, as tests have many of them.
var addrs, tcp, at, upTo, from = porttest.Addrs, porttest.TCP, porttest.At, porttest.UpTo, porttest.From

func words(s string) []string { return strings.Fields(s) }
