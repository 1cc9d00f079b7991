package tunnel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// ForgetNeighbours deletes the neighbours of an interface whose MAC is not known
// yet, with the packets that wait for it. A missing interface has none.
func (h *Basis) ForgetNeighbours(ctx context.Context, dev string) error {
	d, err := h.conn.Device(dev)
	if errors.Is(err, netlink.ErrNotFound) {
		return nil
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	var waiting []Neighbour
	err = eachEntry(h.conn, unix.AF_UNSPEC, d.Index, func() { waiting = nil }, func(e entry) {
		if e.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0 {
			waiting = append(waiting, Neighbour{Addr: e.dst})
		}
	})
	if err != nil {
		return fmt.Errorf("list neighbours of %s: %w", dev, err)
	}
	for _, n := range waiting {
		if err := changeNeighbour(h.conn, unix.RTM_DELNEIGH, d.Index, n); err != nil && !errors.Is(err, netlink.ErrNotFound) {
			return fmt.Errorf("%s: %w", dev, err)
		}
	}
	return nil
}
