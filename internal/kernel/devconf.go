package kernel

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Settings of a link by their numbers: IPV4_DEVCONF_* (linux/ip.h), which count
// from 1, and DEVCONF_* (linux/ipv6.h), which count from 0.
const (
	ipv4Forwarding         = 1
	ipv4RPFilter           = 8
	ipv4ArpIgnore          = 19
	ipv4PromoteSecondaries = 20
	ipv4ArpNotify          = 22
	ipv4RouteLocalnet      = 26
	ipv6Forwarding         = 0
	ipv6AcceptRA           = 3
	ipv6DisableIPv6        = 26
)

// ipv4Conf are settings under net/ipv4/conf/<link>. The kernel tells them with
// the link, so looking at them costs no system call, and takes them in the
// message that changes a link, for which /proc/sys need not be writable.
type ipv4Conf struct {
	known                                          bool // false: no IPv4 at all
	forwarding, rpFilter, arpIgnore, routeLocalnet int
}

// ipv6State are settings under net/ipv6/conf/<link>. The kernel tells them, and
// takes them by /proc/sys only.
type ipv6State struct {
	known                bool // false: no IPv6 at all
	forwarding, acceptRA int
	disabled             bool
}

// parseSettings reads IFLA_AF_SPEC of a link that was asked for with AF_UNSPEC.
func (d *device) parseSettings(b []byte) error {
	return eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case unix.AF_INET:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.IFLA_INET_CONF {
					at := func(n int) int { return element(v, n-1) }
					d.v4 = ipv4Conf{true, at(ipv4Forwarding), at(ipv4RPFilter), at(ipv4ArpIgnore), at(ipv4RouteLocalnet)}
				}
				return nil
			})
		case unix.AF_INET6:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.IFLA_INET6_CONF {
					at := func(n int) int { return element(v, n) }
					d.v6 = ipv6State{true, at(ipv6Forwarding), at(ipv6AcceptRA), at(ipv6DisableIPv6) != 0}
				}
				return nil
			})
		}
		return nil
	})
}

// element is number n, from 0, of an array of 32 bits each; 0 beyond its end.
func element(v []byte, n int) int {
	if len(v) < 4*n+4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v[4*n:])))
}

// setting is a number under net/ipv4/conf and its value.
type setting struct{ number, value int }

// setIPv4 is the attribute that changes settings of a link.
func setIPv4(ss ...setting) *nl.RtAttr {
	conf := nest(unix.IFLA_INET_CONF)
	for _, s := range ss {
		conf.AddChild(attrUint32(s.number, uint32(s.value)))
	}
	return nest(unix.IFLA_AF_SPEC, nest(unix.AF_INET, conf))
}
