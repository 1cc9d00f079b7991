package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// normal has every address once, and those of IPv4 as such.
func normal(e firewall.Endpoint) firewall.Endpoint {
	var addrs []netip.Addr
	for _, a := range e.Addrs {
		if a = a.Unmap().WithZone(""); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	e.Addrs, e.Ports = addrs, slices.Clone(e.Ports)
	for i := range e.Ports {
		e.Ports[i].HostIP = e.Ports[i].HostIP.Unmap()
	}
	return e
}

// check says why n and e cannot be put into rules.
func check(n firewall.Network, e firewall.Endpoint) error {
	if len(e.MAC) > 0 {
		return fmt.Errorf("iptables cannot compare the source MAC of frames with %s: %w", e.MAC, firewall.ErrUnsupported)
	}
	if n.Bridge != "" {
		if err := firewall.CheckOwner(n.GuardKey()); err != nil {
			return fmt.Errorf("network name %w", err)
		}
		for _, dev := range append([]string{n.Bridge}, n.Trusted...) {
			if err := checkInterface(dev); err != nil {
				return err
			}
		}
	}
	if !hasRules(e) {
		return nil
	}
	if err := firewall.CheckOwner(e.Owner); err != nil {
		return fmt.Errorf("owner %w", err)
	}
	if e.Bridge != "" || e.Hairpin || e.Masquerade != (firewall.Families{}) {
		if err := checkInterface(e.Bridge); err != nil {
			return err
		}
	}
	for _, a := range slices.Concat(e.Addrs, e.Source) {
		if err := checkAddr(a); err != nil {
			return err
		}
	}
	for _, p := range e.Ports {
		if err := checkPort(p); err != nil {
			return err
		}
	}
	for _, f := range bothFamilies() {
		if _, err := firewall.Resolve(e.Ports, nil, f == ipv4); err != nil {
			return err
		}
	}
	for _, word := range slices.Concat(e.ConditionsIPv4, e.ConditionsIPv6) {
		if strings.ContainsAny(word, "\x00\n") {
			return fmt.Errorf("condition %q: %w", word, firewall.ErrInvalid)
		}
	}
	return checkOptions(e.IPTables)
}

func hasRules(e firewall.Endpoint) bool {
	return e.Masquerade != firewall.Families{} || len(e.Ports) > 0
}

// checkInterface refuses a "+" at the end, too: to iptables that is every
// interface whose name begins so.
func checkInterface(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \x00\t\n\v\f\r\"'\\") ||
		strings.HasPrefix(name, "!") || strings.HasSuffix(name, "+") {
		return fmt.Errorf("interface %q: %w", name, firewall.ErrInvalid)
	}
	return nil
}

func checkAddr(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("address %s: %w", a, firewall.ErrInvalid)
	}
	return nil
}

func checkPort(p firewall.PortMap) error {
	switch {
	case !slices.Contains([]firewall.Protocol{firewall.TCP, firewall.UDP, firewall.SCTP}, p.Protocol),
		p.HostPort == 0, p.ContainerPort == 0, p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort,
		int(p.ContainerPort)+int(last(p)-p.HostPort) > 65535,
		p.HostIP.IsValid() && checkAddr(p.HostIP) != nil:
		return fmt.Errorf("port %s to container port %d: %w", p, p.ContainerPort, firewall.ErrInvalid)
	}
	return nil
}

func checkOptions(o *firewall.IPTablesOptions) error {
	if o == nil {
		return nil
	}
	if o.MarkBit < 0 || o.MarkBit > 31 {
		return fmt.Errorf("mark bit %d: %w", o.MarkBit, firewall.ErrInvalid)
	}
	if len(o.SetMarkChain) > 28 || strings.ContainsAny(o.SetMarkChain, " \x00\t\n\"'\\") {
		return fmt.Errorf("chain %q: %w", o.SetMarkChain, firewall.ErrInvalid)
	}
	return nil
}
