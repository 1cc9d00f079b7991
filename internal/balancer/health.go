package balancer

import (
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// Own returns the backends of a shared service that are of this host, as they are recorded. A
// service that is not there has none.
func (s *Services) Own(network, name, selected string) ([]service.Backend, error) {
	var r record
	all, err := state.ReadService[service.Backend](s.dir, state.ServiceID{Network: network, Select: selected, Name: name}, &r)
	if state.Missing(err) {
		return nil, nil
	}
	return r.withHealth(all), err
}

// Well returns the keys of this host's backends that were well when they were checked last, by the
// lower case of the service's name.
func (s *Services) Well(network string) (map[string][]string, error) {
	ids, err := s.dir.ServicesOf(network)
	all := map[string][]string{}
	for _, id := range ids {
		var r record
		if _, readErr := s.dir.PeekService(id, &r, "", ""); readErr == nil && len(r.Well) > 0 {
			all[strings.ToLower(r.Name)] = r.Well
		}
	}
	return all, err
}

// withHealth says of backends of this host which are well.
func (r record) withHealth(own []service.Backend) []service.Backend {
	own = slices.Clone(own)
	for i := range own {
		own[i].Well = slices.Contains(r.Well, own[i].Key())
	}
	return own
}
