package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// container is an attachment's end in its namespace. Only sysctls and opening
// sockets need a thread there; the sockets stay there.
type container struct {
	*netlink.Conn
	events *netlink.Events // nil without IPv6 addresses
	late   []lateSysctl
}

// lateSysctl is an open sysctl that is written once the interface is up.
type lateSysctl struct {
	fd int
	ifSysctl
}

func (h *Links) openContainer(l Link) (*container, error) {
	sysctls, want := sysctlsOf(l), []string{""}
	if l.waitsForIPv6() {
		want = append(want, "")
	}
	sockets := len(want)
	for _, s := range sysctls {
		want = append(want, s.path())
	}
	fds, ok := l.Netns.OpenInside(h.proc, want...)
	if !ok {
		return h.openContainerByThread(l, sysctls)
	}
	ct := container{Conn: h.conn.Adopt(fds[0])}
	var err error
	if sockets > 1 {
		ct.events, err = netlink.EventsOf(fds[1])
	}
	for i, fd := range fds[sockets:] {
		if sysctls[i].late() {
			ct.late = append(ct.late, lateSysctl{fd, sysctls[i]})
			continue
		}
		if err == nil {
			err = host.WriteSysctl(fd, want[sockets+i], sysctls[i].Value)
		}
		_ = unix.Close(fd)
	}
	if err != nil {
		ct.Close()
		return nil, err
	}
	return &ct, nil
}

// openContainerByThread is openContainer for what a thread in the namespace
// has to look at: a container without IPv6, or with a read-only /proc/sys.
func (h *Links) openContainerByThread(l Link, sysctls []ifSysctl) (*container, error) {
	var ct container
	err := l.Netns.Do(func() (err error) {
		if err = setSysctls(sysctls, netlink.HasIPv6(l.Addrs)); err != nil {
			return fmt.Errorf("in %s: %w%s", l.Netns.Path(), err, presetHint(err))
		}
		if ct.Conn, err = h.conn.OpenWith(); err == nil && l.waitsForIPv6() {
			ct.events, err = netlink.OpenEvents()
		}
		return err
	})
	if err != nil {
		ct.Close()
		return nil, err
	}
	return &ct, nil
}

// presetHint says how the namespace of a container, which is new, comes by a
// setting where /proc/sys is read-only.
func presetHint(err error) string {
	if !host.ReadOnly(err) {
		return ""
	}
	return " (a new namespace takes the host's net.ipv6.conf.default.* where net.core.devconf_inherit_init_net is 1)"
}

// waitsForIPv6 says that the attachment works when its IPv6 addresses do.
func (l *Link) waitsForIPv6() bool { return netlink.HasIPv6(l.Addrs) && !l.Down }

// settle writes what has waited for the interface to be up.
func (ct *container) settle() (err error) {
	for _, s := range ct.late {
		if err == nil {
			err = host.WriteSysctl(s.fd, s.path(), s.Value)
		}
		_ = unix.Close(s.fd)
	}
	ct.late = nil
	return err
}

func (ct *container) Close() {
	for _, s := range ct.late {
		_ = unix.Close(s.fd)
	}
	if ct.Conn != nil {
		ct.Conn.Close()
	}
	ct.events.Close()
}

// configure sets up the container's end, waits until it works, and returns its index.
func (h *Links) configure(ctx context.Context, l Link, br, host *netlink.Device, mac net.HardwareAddr) (int, error) {
	ct, err := h.openContainer(l)
	if err != nil {
		return 0, err
	}
	defer ct.Close()
	d := &netlink.Device{Index: host.Peer, Name: l.IfName, MAC: mac}
	if l.Down {
		return d.Index, ct.settle()
	}
	others, err := setUp(ctx, ct.Conn, d, l)
	if err == nil {
		err = ct.settle()
	}
	if err == nil && len(others) > 0 {
		err = h.loosen(ct.Conn, d, l, br, others)
	}
	if err != nil {
		return 0, err
	}
	if err := h.waitForwarding(ctx, br, host.Index); err != nil {
		return 0, err
	}
	if netlink.HasIPv6(l.Addrs) {
		if err := netlink.Await(ctx, ct.events, func() (string, error) { return pending(ct.Conn, d.Index, 0) }); err != nil {
			return 0, err
		}
	}
	if len(l.Addrs) > 0 && (!l.Unknown || !l.madeBy(br)) {
		err = announce(ct.Conn, d)
	}
	return d.Index, err
}

// setUp sets addresses, brings the interface up and sets routes. It returns the
// other interfaces that have routes there.
func setUp(ctx context.Context, c *netlink.Conn, d *netlink.Device, l Link) (others []int, err error) {
	for _, p := range l.Addrs {
		if err := c.AddAddr(d.Index, p, l.EnableDAD); err != nil {
			return nil, err
		}
	}
	attrs := []*nl.RtAttr{netlink.SetIPv4(netlink.Setting{Number: netlink.IPv4ArpNotify, Value: 1})}
	if l.Precedence.Network != "" {
		attrs = append(attrs, netlink.Attr(unix.IFLA_IFALIAS, []byte(l.Precedence.alias())))
	}
	if err := c.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP, attrs...); err != nil {
		return nil, fmt.Errorf("set %s up: %w", l.IfName, err)
	}
	return placeRoutes(ctx, c, d, l)
}

// announce makes the kernel send a gratuitous ARP and an unsolicited neighbour
// advertisement for each address (arp_notify, ndisc_notify), by setting the MAC
// that is there. What came with link-up the bridge dropped: its port was not
// yet forwarding. Neighbours of an earlier holder of the address, the host
// above all, would send to its MAC for seconds more.
func announce(c *netlink.Conn, d *netlink.Device) error {
	if err := c.SetLink(d.Index, 0, 0, netlink.Attr(unix.IFLA_ADDRESS, d.MAC)); err != nil {
		return fmt.Errorf("announce addresses of %s: %w", d.Name, err)
	}
	return nil
}

// madeBy says that the maker of l made the bridge, too. One that another program made may
// lead to neighbours that knew an address before this host was started.
func (l *Link) madeBy(br *netlink.Device) bool {
	maker, _, ok := strings.Cut(l.Owner, ":")
	return ok && strings.HasPrefix(br.Alias, maker+":")
}

// ifSysctl is a key under net/ipv6/conf of an interface.
type ifSysctl struct {
	ifName string
	host.Sysctl
}

func (s ifSysctl) path() string { return host.IPv6Conf(s.ifName, s.Key) }

// late says that the interface must be up first: else that announces its addresses, to as
// many as announce does, though the bridge may drop it.
func (s ifSysctl) late() bool { return s.Key == "ndisc_notify" }

// setSysctls sets what the calling thread's namespace has. One without IPv6
// has none of it, which is an error only if IPv6 is needed.
func setSysctls(all []ifSysctl, need bool) error {
	var of host.IPv6Settings
	for _, s := range all {
		if of.IfName != s.ifName {
			of = host.IPv6Settings{IfName: s.ifName}
		}
		if on, err := of.Set(need, s.Sysctl); err != nil || !on {
			return err
		}
	}
	return nil
}

// Settle sets again what Attach set of the container's interface under
// /proc/sys.
func (h *Links) Settle(ctx context.Context, l Link) error {
	if err := errors.Join(ctx.Err(), l.check()); err != nil {
		return err
	}
	return l.Netns.Do(func() error { return setSysctls(sysctlsOf(l), netlink.HasIPv6(l.Addrs)) })
}

// sysctlsOf returns what is to be set in the container before the link is up.
func sysctlsOf(l Link) []ifSysctl {
	if l.IPv6 == host.IPv6Off {
		return []ifSysctl{{l.IfName, host.Sysctl{Key: "disable_ipv6", Value: "1"}}, {l.IfName, host.Sysctl{Key: "accept_ra", Value: "0"}}}
	}
	var all []ifSysctl
	set := func(key, value string) { all = append(all, ifSysctl{l.IfName, host.Sysctl{Key: key, Value: value}}) }
	need := netlink.HasIPv6(l.Addrs)
	if need { // a runtime may have switched the whole namespace off
		all = append(all, ifSysctl{"lo", host.Sysctl{Key: "disable_ipv6", Value: "0"}})
	}
	if need || l.IPv6 == host.IPv6On {
		set("disable_ipv6", "0")
	}
	set("accept_ra", "0")
	if l.EnableDAD {
		set("enhanced_dad", "1")
		set("accept_dad", "1")
	} else {
		set("accept_dad", "0")
	}
	if need {
		set("keep_addr_on_down", "1")
		set("ndisc_notify", "1")
	}
	return all
}
