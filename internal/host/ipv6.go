package host

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// IPv6Mode says whether an interface speaks IPv6.
type IPv6Mode int

// The IPv6 modes of an interface.
const (
	// IPv6Keep leaves disable_ipv6 as the kernel made it.
	IPv6Keep IPv6Mode = iota
	// IPv6Off sets disable_ipv6=1 before the interface comes up.
	IPv6Off
	// IPv6On sets disable_ipv6=0 before the interface comes up.
	IPv6On
)

// OwnIPv6 prepares a new link of the host, before it comes up: no routes from
// router advertisements, IPv6 as wanted, and no DAD: until it has its link-local
// address a host cannot ask for the MAC of a container it forwards to.
func (all Sysctls) OwnIPv6(name string, mode IPv6Mode, need bool) error {
	_, err := all.SetIPv6(name, need, ownIPv6(mode, need)...)
	return err
}

// CanOwnIPv6 says what a read-only /proc/sys would have OwnIPv6 refuse for a link that
// is made now: the kernel gives it the values of net/ipv6/conf/default.
func (all Sysctls) CanOwnIPv6(mode IPv6Mode, need bool) error {
	off := false
	for _, s := range ownIPv6(mode, need) {
		err := all.CanSet(IPv6Conf("default", s.Key), s.Value)
		if errors.Is(err, ErrReadOnly) && !off && !s.comfort() {
			return err
		}
		off = off || err == nil && s.turnsOff()
	}
	return nil
}

func ownIPv6(mode IPv6Mode, need bool) []Sysctl {
	var ss []Sysctl
	switch {
	case mode == IPv6Off: // first: without IPv6 the others are of no effect
		ss = append(ss, Sysctl{"disable_ipv6", "1"})
	case mode == IPv6On || need:
		ss = append(ss, Sysctl{"disable_ipv6", "0"})
	}
	return append(ss, Sysctl{"accept_ra", "0"}, Sysctl{"accept_dad", "0"})
}

// CheckAddrs refuses addresses the kernel could not set.
func CheckAddrs(ps []netip.Prefix, mode IPv6Mode) error {
	for _, p := range ps {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return fmt.Errorf("invalid address %s", p)
		}
		if p.Addr().Is6() && mode == IPv6Off {
			return fmt.Errorf("address %s on an interface with IPv6 off", p)
		}
	}
	return nil
}

// Sysctl is a key under net/ipv6/conf/<interface> and its value.
type Sysctl struct{ Key, Value string }

// comfort says that an interface is as safe, and reached as well, without it:
// a link only works a moment later. Where /proc/sys is read-only it is left.
func (s Sysctl) comfort() bool {
	switch s.Key {
	case "accept_dad":
		return s.Value == "0"
	case "forwarding": // the kernel asks "all" before it forwards
		return s.Value == "1"
	case "enhanced_dad", "keep_addr_on_down", "ndisc_notify":
		return true
	}
	return false
}

// turnsOff says that after it no other IPv6 setting of the interface has an effect.
func (s Sysctl) turnsOff() bool { return s.Key == "disable_ipv6" && s.Value == "1" }

// IPv6Settings are sysctls of one interface, set in their order.
type IPv6Settings struct {
	Sysctls
	IfName string
	off    bool // IPv6 is, by one of them: what follows is of no effect
}

// Set writes s. It reports false when the interface has no IPv6 at all, which
// is an error only if IPv6 is needed.
func (all *IPv6Settings) Set(need bool, s Sysctl) (bool, error) {
	err := all.Sysctls.Set(IPv6Conf(all.IfName, s.Key), s.Value)
	switch {
	case err == nil:
		all.off = all.off || s.turnsOff()
	case ReadOnly(err) && (all.off || s.comfort()):
	case errors.Is(err, netlink.ErrNotFound) && !need:
		return false, nil
	default:
		return false, NoIPv6(err)
	}
	return true, nil
}

// SetIPv6 writes ss for an interface. It reports false when the interface has
// no IPv6 at all, which is an error only if IPv6 is needed.
func (all Sysctls) SetIPv6(ifName string, need bool, ss ...Sysctl) (bool, error) {
	of := IPv6Settings{Sysctls: all, IfName: ifName}
	for _, s := range ss {
		if on, err := of.Set(need, s); err != nil || !on {
			return false, err
		}
	}
	return true, nil
}

// IPv6Conf is the path under /proc/sys of an IPv6 setting of an interface.
func IPv6Conf(ifName, key string) string { return "net/ipv6/conf/" + ifName + "/" + key }

// NoIPv6 says why an IPv6 sysctl can be missing.
func NoIPv6(err error) error {
	if errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("%w: IPv6 (off by the boot parameter ipv6.disable=1, or an MTU below 1280): %w", netlink.ErrUnsupported, err)
	}
	return err
}
