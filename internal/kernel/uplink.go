package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// UplinkMTU returns the MTU in bytes of the default routes: a route's own MTU,
// else its device's; the lowest of them all. ErrNotFound without a default route.
func (h *Host) UplinkMTU() (int, error) {
	lowest := 0
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := h.conn.routes(fam, 0, unix.RT_TABLE_MAIN)
		if err != nil {
			return 0, fmt.Errorf("uplink MTU: %w", err)
		}
		for _, r := range rs {
			if r.dst.Bits() != 0 || r.oif == 0 {
				continue
			}
			mtu := r.mtu
			if mtu == 0 {
				d, err := h.conn.deviceByIndex(r.oif)
				if errors.Is(err, ErrNotFound) {
					continue // gone since the list
				}
				if err != nil {
					return 0, fmt.Errorf("uplink MTU: %w", err)
				}
				mtu = d.mtu
			}
			if lowest == 0 || mtu < lowest {
				lowest = mtu
			}
		}
	}
	if lowest == 0 {
		return 0, fmt.Errorf("uplink MTU: default route: %w", ErrNotFound)
	}
	return lowest, nil
}
