package kernel

import (
	"errors"
	"fmt"
	"net/netip"
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

// ownIPv6 prepares a new link of the host, before it comes up: no routes from
// router advertisements, IPv6 as wanted, and no DAD: until it has its link-local
// address a host cannot ask for the MAC of a container it forwards to.
func ownIPv6(name string, mode IPv6Mode, need bool) error {
	var ss []sysctl
	switch {
	case mode == IPv6Off: // first: without IPv6 the others are of no effect
		ss = append(ss, sysctl{"disable_ipv6", "1"})
	case mode == IPv6On || need:
		ss = append(ss, sysctl{"disable_ipv6", "0"})
	}
	ss = append(ss, sysctl{"accept_ra", "0"}, sysctl{"accept_dad", "0"})
	_, err := setIPv6(name, need, ss...)
	return err
}

// checkAddrs refuses addresses the kernel could not set.
func checkAddrs(ps []netip.Prefix, mode IPv6Mode) error {
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

// sysctl is a key under net/ipv6/conf/<interface> and its value.
type sysctl struct{ key, value string }

// comfort says that an interface is as safe, and reached as well, without it:
// a link only works a moment later. Where /proc/sys is read-only it is left.
func (s sysctl) comfort() bool {
	switch s.key {
	case "accept_dad":
		return s.value == "0"
	case "forwarding": // the kernel asks "all" before it forwards
		return s.value == "1"
	case "enhanced_dad", "keep_addr_on_down", "ndisc_notify":
		return true
	}
	return false
}

// ipv6Settings are sysctls of one interface, set in their order.
type ipv6Settings struct {
	ifName string
	off    bool // IPv6 is, by one of them: what follows is of no effect
}

// set writes s. It reports false when the interface has no IPv6 at all, which
// is an error only if IPv6 is needed.
func (all *ipv6Settings) set(need bool, s sysctl) (bool, error) {
	err := setSysctl(ipv6Conf(all.ifName, s.key), s.value)
	switch {
	case err == nil:
		all.off = all.off || s.key == "disable_ipv6" && s.value == "1"
	case readOnly(err) && (all.off || s.comfort()):
	case errors.Is(err, ErrNotFound) && !need:
		return false, nil
	default:
		return false, noIPv6(err)
	}
	return true, nil
}

// setIPv6 writes ss for an interface. It reports false when the interface has
// no IPv6 at all, which is an error only if IPv6 is needed.
func setIPv6(ifName string, need bool, ss ...sysctl) (bool, error) {
	all := ipv6Settings{ifName: ifName}
	for _, s := range ss {
		if on, err := all.set(need, s); err != nil || !on {
			return false, err
		}
	}
	return true, nil
}

func ipv6Conf(ifName, key string) string { return "net/ipv6/conf/" + ifName + "/" + key }

// noIPv6 says why an IPv6 sysctl can be missing.
func noIPv6(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: IPv6 (off by the boot parameter ipv6.disable=1, or an MTU below 1280): %w", ErrUnsupported, err)
	}
	return err
}
