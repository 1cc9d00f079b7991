package lntest

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddLink makes a link with addresses, IPv6 ones usable at once.
func AddLink(l netlink.Link, cidrs ...string) error {
	err := netlink.LinkAdd(l)
	for _, c := range cidrs {
		addr, parseErr := netlink.ParseAddr(c)
		if err == nil && parseErr == nil {
			addr.Flags = unix.IFA_F_NODAD
			err = netlink.AddrAdd(l, addr)
		}
	}
	return err
}

// LinkNames lists the links of the calling thread's namespace; "nothing left"
// compares it.
func LinkNames(t testing.TB) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(all))
	for i, l := range all {
		names[i] = l.Name
	}
	return strings.Join(names, " ")
}

// CIDR parses what is a network; nil: it is none.
func CIDR(s string) *net.IPNet {
	_, n, _ := net.ParseCIDR(s)
	return n
}

// Prefixes parses addresses with their prefix lengths.
func Prefixes(ss ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

// Must returns v; an error ends the test.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
