package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netns"
)

// The demo's world: a host with an uplink to the outside, which is a namespace,
// too. Paths are as a runtime has them.
const (
	hostNetns = "/proc/self/ns/net"
	outside   = "/run/netns/outside"
	uplinkMTU = 1450 // so that "mtu": "auto" has something to find
)

func container(id string) string { return "/run/netns/" + id }

// uplinks are the addresses of both ends, of those set aside for documentation
// (RFC 5737, RFC 3849).
func uplinks() []struct{ host, outside netip.Prefix } {
	return []struct{ host, outside netip.Prefix }{
		{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")},
		{netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("2001:db8::2/64")},
	}
}

// build makes the world out of the process's fresh namespaces. The directories
// of the plugins become empty ones in memory.
func build() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("demo", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	for _, path := range []string{outside, container("c1"), container("c2")} {
		if err := netns.Create(path); err != nil {
			return err
		}
	}
	if err := connect(); err != nil {
		return fmt.Errorf("make the uplink: %w", err)
	}
	return nil
}

// connect makes the uplink, a veth, and the host's routes over it.
func connect() error {
	ns, err := os.Open(outside)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "uplink", uplinkMTU
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerMTU: uplinkMTU, PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	var here, there []netip.Prefix
	for _, u := range uplinks() {
		here, there = append(here, u.host), append(there, u.outside)
	}
	if err := within(outside, func() error { return setUp("eth0", there...) }); err != nil {
		return err
	}
	if err := errors.Join(setUp("lo"), setUp("uplink", here...)); err != nil {
		return err
	}
	for _, p := range there {
		if err := netlink.RouteAdd(&netlink.Route{Gw: p.Addr().AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// setUp brings a link up with its addresses. IPv6 is ready at once: neither
// duplicate detection nor a link-local address that has one.
func setUp(name string, addrs ...netip.Prefix) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := netlink.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil {
		return err
	}
	for _, p := range addrs {
		a, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// within runs fn in the network namespace at path.
func within(path string, fn func() error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(ns.Do(fn), ns.Close())
}
