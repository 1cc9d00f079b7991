package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// UplinkMTU returns the MTU in bytes of the default routes: a route's own MTU,
// else its device's; the lowest of them all. ErrNotFound without a default route.
func (h *Host) UplinkMTU() (int, error) {
	lowest := 0
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := h.conn.Routes(fam, 0, unix.RT_TABLE_MAIN)
		if err != nil {
			return 0, fmt.Errorf("uplink MTU: %w", err)
		}
		for _, r := range rs {
			if r.Dst.Bits() != 0 || r.OIF == 0 {
				continue
			}
			mtu := r.MTU
			if mtu == 0 {
				d, err := h.conn.DeviceByIndex(r.OIF)
				if errors.Is(err, netlink.ErrNotFound) {
					continue // gone since the list
				}
				if err != nil {
					return 0, fmt.Errorf("uplink MTU: %w", err)
				}
				mtu = d.MTU
			}
			if lowest == 0 || mtu < lowest {
				lowest = mtu
			}
		}
	}
	if lowest == 0 {
		return 0, fmt.Errorf("uplink MTU: default route: %w", netlink.ErrNotFound)
	}
	return lowest, nil
}
