package link

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// waitForwarding waits until the bridge has taken the port into service. Since
// kernel 6.9 asking for a link first finishes its pending carrier change, so
// the first look is enough. With STP on a port listens for long; that is not
// waited for.
func (h *Links) waitForwarding(ctx context.Context, br *netlink.Device, index int) error {
	return netlink.Await(ctx, nil, func() (string, error) {
		d, err := h.conn.DeviceByIndex(index)
		if err != nil {
			return "", fmt.Errorf("port: %w", err)
		}
		if d.Oper != netlink.OperUp || d.PortState == netlink.PortDisabled {
			return fmt.Sprintf("port %s to forward", d.Name), nil
		}
		if br.Oper == netlink.OperUp || d.PortState != netlink.PortForwarding {
			return "", nil
		}
		return pending(h.conn, br.Index, unix.IFA_F_NODAD)
	})
}

// pending says what a link that was just set up has yet to do: become
// operational, and then let its IPv6 addresses work that have all of flags.
func pending(c *netlink.Conn, index int, flags uint32) (string, error) {
	d, err := c.DeviceByIndex(index)
	if err != nil {
		return "", err
	}
	if d.Oper != netlink.OperUp {
		return fmt.Sprintf("%s to be up", d.Name), nil
	}
	return tentative(c, index, flags)
}

// errDAD is for an address that another machine has.
var errDAD error = &sentinel.Error{Text: "duplicate address detected"}

// tentative names an IPv6 address of the link that does not work yet, of those
// that have all of flags. Even a NODAD address is tentative until the link is
// up and a kernel worker has run.
func tentative(c *netlink.Conn, index int, flags uint32) (string, error) {
	as, err := c.Addrs(index, unix.AF_INET6)
	if err != nil {
		return "", err
	}
	for _, a := range as {
		if a.Flags&unix.IFA_F_DADFAILED != 0 && flags == 0 {
			return "", fmt.Errorf("address %s: %w", a.Prefix, errDAD)
		}
		if a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&flags == flags {
			return fmt.Sprintf("address %s to leave duplicate detection", a.Prefix), nil
		}
	}
	return "", nil
}
