package operator

import (
	"errors"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/life"
)

// OtherNetwork is a network of a driver that is not the engine's: host, null, or a CNI
// plugin. Go programs make them by the library.
type OtherNetwork struct {
	driver.Network
	Endpoints, Dead int // Dead of them have a container that is provably gone
}

// OtherNetworks returns them in the order of their names. Unreadable records are left
// out and reported in the error, beside the rest.
func (o *Operator) OtherNetworks() ([]OtherNetwork, error) {
	dead := func(l driver.Life) bool {
		return o.Dead(life.Holder{Boot: l.Boot, Netns: l.Netns, NetnsID: life.NetnsID(l.NetnsID), MountNS: l.MountNS})
	}
	s := driver.New(o.StateDir, dead)
	networks, err := s.List()
	errs := []error{err}
	var all []OtherNetwork
	for _, n := range networks {
		endpoints, err := s.Endpoints(n)
		errs = append(errs, err)
		other := OtherNetwork{Network: n, Endpoints: len(endpoints)}
		for _, e := range endpoints {
			if e.Dead() {
				other.Dead++
			}
		}
		all = append(all, other)
	}
	return all, errors.Join(errs...)
}
