package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// waitForwarding waits until the bridge has taken the port into service. Since
// kernel 6.9 asking for a link first finishes its pending carrier change, so
// the first look is enough. With STP on a port listens for long; that is not
// waited for.
func (h *Links) waitForwarding(ctx context.Context, br *device, index int) error {
	return await(ctx, nil, func() (string, error) {
		d, err := h.conn.deviceByIndex(index)
		if err != nil {
			return "", fmt.Errorf("port: %w", err)
		}
		if d.oper != operUp || d.portState == portDisabled {
			return fmt.Sprintf("port %s to forward", d.name), nil
		}
		if br.oper == operUp || d.portState != portForwarding {
			return "", nil
		}
		return pending(h.conn, br.index, unix.IFA_F_NODAD)
	})
}

// pending says what a link that was just set up has yet to do: become
// operational, and then let its IPv6 addresses work that have all of flags.
func pending(c *conn, index int, flags uint32) (string, error) {
	d, err := c.deviceByIndex(index)
	if err != nil {
		return "", err
	}
	if d.oper != operUp {
		return fmt.Sprintf("%s to be up", d.name), nil
	}
	return tentative(c, index, flags)
}

// errDAD is for an address that another machine has.
var errDAD = errors.New("duplicate address detected")

// tentative names an IPv6 address of the link that does not work yet, of those
// that have all of flags. Even a NODAD address is tentative until the link is
// up and a kernel worker has run.
func tentative(c *conn, index int, flags uint32) (string, error) {
	as, err := c.addrs(index, unix.AF_INET6)
	if err != nil {
		return "", err
	}
	for _, a := range as {
		if a.flags&unix.IFA_F_DADFAILED != 0 && flags == 0 {
			return "", fmt.Errorf("address %s: %w", a.prefix, errDAD)
		}
		if a.flags&unix.IFA_F_TENTATIVE != 0 && a.flags&flags == flags {
			return fmt.Sprintf("address %s to leave duplicate detection", a.prefix), nil
		}
	}
	return "", nil
}
