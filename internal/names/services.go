package names

import (
	"slices"

	"github.com/libnet-cni/libnet/internal/resolver"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/state"
)

// services are the names of services in the table.
type services struct {
	dir   *state.Dir
	note  state.Note
	again bool // an attachment came: it may tell the domain of its network
	known map[string]resolver.Endpoint
}

// updateServices brings the names of services to what their records say.
func (s *Service) updateServices() error {
	now := s.services.dir.ServicesNote()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now == s.services.note && (!s.services.again || now == state.Note{}) {
		return nil
	}
	all, err := readServices(s.services.dir)
	if err != nil {
		return err
	}
	s.services.note, s.services.again = now, false
	domains := map[string]string{}
	for at, one := range s.others.own {
		domains[at.network] = one.Domain
	}
	known := map[string]resolver.Endpoint{}
	for _, e := range all {
		domain, named := domains[e.Network]
		if !named || len(e.Addresses) == 0 {
			continue
		}
		e.Domain = domain
		known[e.Network+"/"+e.Container] = e
		s.table.Put(e)
	}
	for key, e := range s.services.known {
		if _, has := known[key]; !has {
			s.table.Delete(e)
		}
	}
	s.services.known = known
	return nil
}

// readServices returns each service as if it were a container: with its address, or with
// those of its backends.
func readServices(dir *state.Dir) (all []resolver.Endpoint, err error) {
	ids, err := dir.Services()
	for _, id := range ids {
		var def struct {
			service.Service
			Others []service.Backend // on other hosts
			Well   []string          // keys of those of this host, of a service with a check
		}
		backends, readErr := state.ReadService[service.Backend](dir, id, &def)
		if readErr != nil {
			if !state.Missing(readErr) {
				err = readErr
			}
			continue
		}
		e := resolver.Endpoint{Network: id.Network, Names: []string{def.Name}, Addresses: def.VIPs, Service: true}
		e.Container, e.IfName = service.Lease(def.Name)
		if len(def.VIPs) == 0 {
			for i := range backends {
				backends[i].Well = slices.Contains(def.Well, backends[i].Key())
			}
			all := append(backends, def.Others...)
			for _, b := range def.Serving(all, all) {
				if def.Weight(b.ContainerID) > 0 {
					e.Addresses = append(e.Addresses, b.Addresses...)
				}
			}
		}
		all = append(all, e)
	}
	return all, err
}
