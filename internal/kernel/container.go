package kernel

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// ipv4ArpNotify is IPV4_DEVCONF_ARP_NOTIFY (linux/ip.h).
const ipv4ArpNotify = 22

// container is an attachment's end in its namespace. Only sysctls and opening
// sockets need a thread there; the sockets stay there.
type container struct {
	*conn
	events *events // nil without IPv6 addresses
}

func (h *Handle) openContainer(l Link) (*container, error) {
	var ct container
	err := l.Netns.Do(func() (err error) {
		if err = containerSysctls(l); err != nil {
			return err
		}
		if ct.conn, err = openConnOver(h.buf); err == nil && hasIPv6(l.Addrs) && !l.Down {
			ct.events, err = openEvents()
		}
		return err
	})
	if err != nil {
		ct.close()
		return nil, err
	}
	return &ct, nil
}

func (ct *container) close() {
	if ct.conn != nil {
		ct.conn.close()
	}
	ct.events.close()
}

// configure sets up the container's end, waits until it works, and returns its index.
func (h *Handle) configure(ctx context.Context, l Link, br, host *device, mac net.HardwareAddr) (int, error) {
	ct, err := h.openContainer(l)
	if err != nil {
		return 0, err
	}
	defer ct.close()
	d := &device{index: host.peer, name: l.IfName, mac: mac}
	if l.Down {
		return d.index, nil
	}
	if err := ct.setUp(d, l); err != nil {
		return 0, err
	}
	if err := h.waitForwarding(ctx, br, host.index); err != nil {
		return 0, err
	}
	if hasIPv6(l.Addrs) {
		if err := await(ctx, ct.events, func() (string, error) { return ct.pending(d.index, 0) }); err != nil {
			return 0, err
		}
	}
	if len(l.Addrs) > 0 {
		err = ct.announce(d)
	}
	return d.index, err
}

// setUp sets addresses, brings the interface up and sets routes.
func (c *conn) setUp(d *device, l Link) error {
	for _, p := range l.Addrs {
		if err := c.addAddr(d.index, p, l.EnableDAD); err != nil {
			return err
		}
	}
	arpNotify := nest(unix.AF_INET, nest(unix.IFLA_INET_CONF, attrUint32(ipv4ArpNotify, 1)))
	if err := c.setLink(d.index, unix.IFF_UP, unix.IFF_UP, nest(unix.IFLA_AF_SPEC, arpNotify)); err != nil {
		return fmt.Errorf("set %s up: %w", l.IfName, err)
	}
	for _, r := range l.Routes {
		if err := c.addRoute(d.index, r); err != nil {
			return err
		}
	}
	return nil
}

// announce makes the kernel send a gratuitous ARP and an unsolicited neighbour
// advertisement for each address (arp_notify, ndisc_notify), by setting the MAC
// that is there. What came with link-up the bridge dropped: its port was not
// yet forwarding. Neighbours of an earlier holder of the address, the host
// above all, would send to its MAC for seconds more.
func (c *conn) announce(d *device) error {
	if err := c.setLink(d.index, 0, 0, attr(unix.IFLA_ADDRESS, d.mac)); err != nil {
		return fmt.Errorf("announce addresses of %s: %w", d.name, err)
	}
	return nil
}

// containerSysctls runs in the container's namespace, before the link is up.
func containerSysctls(l Link) error {
	if l.IPv6 == IPv6Off {
		_, err := setIPv6(l.IfName, false, sysctl{"disable_ipv6", "1"}, sysctl{"accept_ra", "0"})
		return err
	}
	need := hasIPv6(l.Addrs)
	if need {
		// A runtime may have switched the whole namespace off.
		if _, err := setIPv6("lo", true, sysctl{"disable_ipv6", "0"}); err != nil {
			return err
		}
	}
	var ss []sysctl
	if need || l.IPv6 == IPv6On {
		ss = append(ss, sysctl{"disable_ipv6", "0"})
	}
	ss = append(ss, sysctl{"accept_ra", "0"})
	if l.EnableDAD {
		ss = append(ss, sysctl{"enhanced_dad", "1"}, sysctl{"accept_dad", "1"})
	} else {
		ss = append(ss, sysctl{"accept_dad", "0"})
	}
	if need {
		ss = append(ss, sysctl{"keep_addr_on_down", "1"}, sysctl{"ndisc_notify", "1"})
	}
	_, err := setIPv6(l.IfName, need, ss...)
	return err
}
