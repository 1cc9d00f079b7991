package netlink

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Settings of a link by their numbers: IPV4_DEVCONF_* (linux/ip.h), which count
// from 1, and DEVCONF_* (linux/ipv6.h), which count from 0.
const (
	IPv4Forwarding         = 1
	IPv4RPFilter           = 8
	IPv4ArpIgnore          = 19
	IPv4PromoteSecondaries = 20
	IPv4ArpNotify          = 22
	IPv4RouteLocalnet      = 26
	ipv6Forwarding         = 0
	ipv6AcceptRA           = 3
	ipv6DisableIPv6        = 26
)

// IPv4Conf are settings under net/ipv4/conf/<link>. The kernel tells them with
// the link, so looking at them costs no system call, and takes them in the
// message that changes a link, for which /proc/sys need not be writable.
type IPv4Conf struct {
	Known                                          bool // false: no IPv4 at all
	Forwarding, RPFilter, ArpIgnore, RouteLocalnet int
}

// IPv6State are settings under net/ipv6/conf/<link>. The kernel tells them, and
// takes them by /proc/sys only.
type IPv6State struct {
	Known                bool // false: no IPv6 at all
	Forwarding, AcceptRA int
	Disabled             bool
}

// parseSettings reads IFLA_AF_SPEC of a link that was asked for with AF_UNSPEC.
func (d *Device) parseSettings(b []byte) error {
	return EachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case unix.AF_INET:
			return EachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.IFLA_INET_CONF {
					at := func(n int) int { return element(v, n-1) }
					d.V4 = IPv4Conf{true, at(IPv4Forwarding), at(IPv4RPFilter), at(IPv4ArpIgnore), at(IPv4RouteLocalnet)}
				}
				return nil
			})
		case unix.AF_INET6:
			return EachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.IFLA_INET6_CONF {
					at := func(n int) int { return element(v, n) }
					d.V6 = IPv6State{true, at(ipv6Forwarding), at(ipv6AcceptRA), at(ipv6DisableIPv6) != 0}
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

// Setting is a number under net/ipv4/conf and its value.
type Setting struct{ Number, Value int }

// SetIPv4 is the attribute that changes settings of a link.
func SetIPv4(ss ...Setting) *nl.RtAttr {
	conf := Nest(unix.IFLA_INET_CONF)
	for _, s := range ss {
		conf.AddChild(AttrUint32(s.Number, uint32(s.Value)))
	}
	return Nest(unix.IFLA_AF_SPEC, Nest(unix.AF_INET, conf))
}
