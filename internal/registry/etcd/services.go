package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/service"
)

// Services hears which services the networks have.
type Services interface {
	// Defined tells the definitions of all services, or those that changed. One that is gone
	// has no Select.
	Defined(these []service.Shared, all bool)
}

// Serve has definitions of services told in each session that begins from now on.
func (r *Registry) Serve(s Services) { r.services = s }

// ErrNoService says that there is no such service.
var ErrNoService = errors.New("no such service")

// serviceValue is of services/<network>/<service>.
type serviceValue struct {
	Name         string                 `json:"name"`
	Select       string                 `json:"select"`
	VIPs         []netip.Addr           `json:"vips,omitempty"`
	Ports        []string               `json:"ports,omitempty"`
	Publish      []string               `json:"publish,omitempty"`
	External     service.External       `json:"external,omitempty"`
	Affinity     service.Affinity       `json:"affinity"`
	StartDrained bool                   `json:"startDrained,omitempty"`
	Check        string                 `json:"check,omitempty"`
	Weights      map[string]weightValue `json:"weights,omitempty"` // by container
}

type weightValue struct {
	Weight int    `json:"weight"`
	Node   string `json:"node,omitempty"` // the container's host
}

// vipValue is of vips/<network>/<address>.
type vipValue struct {
	Service string `json:"service"`
}

func encodeService(s service.Shared) string {
	v := serviceValue{Name: s.Name, Select: s.Select, VIPs: s.VIPs, External: s.External, Affinity: s.Affinity, StartDrained: s.StartDrained}
	for _, p := range s.Published {
		v.Publish = append(v.Publish, p.String())
	}
	for _, p := range s.Ports {
		v.Ports = append(v.Ports, p.String())
	}
	if s.Health.Is() {
		v.Check = s.Health.String()
	}
	for id, w := range s.Weights {
		if v.Weights == nil {
			v.Weights = map[string]weightValue{}
		}
		v.Weights[id] = weightValue{w, s.Homes[id]}
	}
	return encode(v)
}

// decodeService reads a definition, and checks it: others may have written it.
func decodeService(network string, kv *mvccpb.KeyValue) (s service.Shared, err error) {
	var v serviceValue
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return s, err
	}
	s.Service = service.Service{
		Network: network, Name: v.Name, Select: v.Select, VIPs: v.VIPs, External: v.External, Affinity: v.Affinity, StartDrained: v.StartDrained, Shared: true,
	}
	for _, text := range v.Publish {
		p, err := service.ParsePublished(text)
		if err != nil {
			return s, err
		}
		s.Published = append(s.Published, p)
	}
	s.Revision = kv.ModRevision
	for _, text := range v.Ports {
		p, err := service.ParsePort(text)
		if err != nil {
			return s, err
		}
		s.Ports = append(s.Ports, p)
	}
	if err := s.SetHealth(v.Check); err != nil {
		return s, err
	}
	for id, w := range v.Weights {
		if s.Weights == nil {
			s.Weights, s.Homes = map[string]int{}, map[string]string{}
		}
		s.Weights[id], s.Homes[id] = w.Weight, w.Node
	}
	return s, s.Check()
}

// services is what a mirror has of services, by the key's last two parts.
type services struct {
	all  map[[2]string]service.Shared
	news map[[2]string]bool // what changed since tell
}

func newServices() services {
	return services{all: map[[2]string]service.Shared{}, news: map[[2]string]bool{}}
}

// isService says that a key, as split returns it, is of a service.
func isService(part []string) bool { return len(part) == 3 && part[0] == "services" }

func (s *services) put(part []string, kv *mvccpb.KeyValue) error {
	id := [2]string{part[1], part[2]}
	one, err := decodeService(part[1], kv)
	if err == nil && strings.ToLower(one.Name) != part[2] {
		err = fmt.Errorf("want the name %q", part[2])
	}
	if s.news[id] = true; err == nil {
		s.all[id] = one
	}
	return err
}

func (s *services) drop(part []string) {
	id := [2]string{part[1], part[2]}
	delete(s.all, id)
	s.news[id] = true
}

// tell hands on all definitions, or those that changed.
func (s *services) tell(to Services, all bool) {
	var these []service.Shared
	for id := range s.news {
		one, there := s.all[id]
		if !there {
			one.Network, one.Name = id[0], id[1]
		}
		if there || !all {
			these = append(these, one)
		}
	}
	s.news = map[[2]string]bool{} // as in names.tell
	if to != nil && (all || len(these) > 0) {
		to.Defined(these, all)
	}
}

// CreateService writes the definition of a new service, with addresses that no other service
// and no container of the network has: auto, free ones out of blocks that services have to
// themselves; otherwise those of the definition, none of them, too. The first service takes
// such a block, for good. v is a view of the session.
//
// The errors: service.ErrInvalid for an address that cannot be, overlay.ErrTaken if there is a
// service of that name, overlay.ErrFull.
func (r *Registry) CreateService(ctx context.Context, v overlay.View, def service.Service, auto bool) (service.Shared, error) {
	s, err := r.createService(ctx, v, def, auto)
	if err != nil {
		return s, fmt.Errorf("service %q of network %q: %w", def.Name, def.Network, err)
	}
	return s, nil
}

func (r *Registry) createService(ctx context.Context, v overlay.View, def service.Service, auto bool) (s service.Shared, err error) {
	c, err := r.current()
	if err != nil {
		return s, err
	}
	def.Shared = true
	for range serviceTries {
		room, err := r.room(ctx, c, def.Network, def.Name)
		if err != nil {
			return s, err
		}
		s = service.Shared{Service: def}
		if auto {
			s.VIPs, err = room.free(def.Name)
		} else {
			err = room.check(def.VIPs)
		}
		if err != nil {
			return s, err
		}
		lacks, err := room.lacks(s.VIPs)
		if err != nil {
			return s, err
		}
		if lacks.IsValid() {
			if err := r.reserve(ctx, c, v, room, lacks); err != nil {
				return s, err
			}
			continue
		}
		resp, err := txn(ctx, c, r.createWhen(room, s), r.createPuts(s), nil)
		if err != nil {
			return s, err
		}
		if resp.Succeeded {
			s.Revision = resp.Header.Revision
			return s, nil
		}
	}
	return s, fmt.Errorf("%w: others take addresses all the time: try again", overlay.ErrTaken)
}

// serviceTries bounds how often another host may be faster: many may make services at once.
const serviceTries = 100

func (r *Registry) createWhen(room room, s service.Shared) []clientv3.Cmp {
	when := []clientv3.Cmp{unchanged(r.keys.service(s.Network, s.Name), 0), unchanged(r.keys.terms(s.Network), room.Revision)}
	for _, a := range s.VIPs {
		b := room.block(a)
		when = append(when, unchanged(r.keys.vip(s.Network, a), 0), unchanged(r.keys.block(s.Network, b), room.Blocks[b].Revision))
	}
	return when
}

func (r *Registry) createPuts(s service.Shared) []clientv3.Op {
	puts := []clientv3.Op{clientv3.OpPut(r.keys.service(s.Network, s.Name), encodeService(s))}
	for _, a := range s.VIPs {
		puts = append(puts, clientv3.OpPut(r.keys.vip(s.Network, a), encode(vipValue{s.Name})))
	}
	return puts
}

// reserve makes a block that of services. That another host was faster, whatever it wanted, is
// success: the next look tells.
func (r *Registry) reserve(ctx context.Context, c *clientv3.Client, v overlay.View, room room, block netip.Prefix) error {
	if !v.Settled {
		return errors.New("no host that knows which blocks were given has looked at this etcd yet: try again soon")
	}
	key := r.keys.block(room.network, block)
	_, err := txn(ctx, c, []clientv3.Cmp{
		unchanged(key, 0), unchanged(r.keys.terms(room.network), room.Revision),
		clientv3.Compare(clientv3.CreateRevision(r.keys.holds(r.conf.Self.Name)), ">", 0),
		clientv3.Compare(clientv3.ModRevision(r.keys.history()), "<", v.At.Revision+1),
	}, []clientv3.Op{clientv3.OpPut(key, encodeBlock(overlay.ServiceHolder, overlay.Epoch{Generation: v.At.Generation, Revision: room.revision}))}, nil)
	return err
}

// ReadService returns the definition of a service as it is in etcd now; ErrNoService.
func (r *Registry) ReadService(ctx context.Context, network, name string) (service.Shared, error) {
	c, err := r.current()
	if err != nil {
		return service.Shared{}, err
	}
	return r.readService(ctx, c, network, name)
}

func (r *Registry) readService(ctx context.Context, c *clientv3.Client, network, name string) (s service.Shared, err error) {
	got, err := ask(ctx, c, clientv3.OpGet(r.keys.service(network, name)))
	if err == nil {
		kvs := got.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return s, fmt.Errorf("%w: %q on network %q", ErrNoService, name, network)
		}
		s, err = decodeService(network, kvs[0])
	}
	if err != nil {
		return s, fmt.Errorf("read service %q of network %q: %w", name, network, err)
	}
	return s, nil
}

// PutService writes a definition in the place of the one of its revision, and returns it with
// the new one. ErrTaken says that it has changed since, or is gone. Name, selection and
// addresses have to be those of before.
func (r *Registry) PutService(ctx context.Context, s service.Shared) (service.Shared, error) {
	c, err := r.current()
	if err != nil {
		return s, err
	}
	if s.Revision == 0 { // it would be a new one
		return s, fmt.Errorf("change service %q of network %q: %w", s.Name, s.Network, overlay.ErrTaken)
	}
	key := r.keys.service(s.Network, s.Name)
	resp, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, s.Revision)}, []clientv3.Op{clientv3.OpPut(key, encodeService(s))}, nil)
	if err == nil && !resp.Succeeded {
		err = overlay.ErrTaken
	}
	if err != nil {
		return s, fmt.Errorf("change service %q of network %q: %w", s.Name, s.Network, err)
	}
	s.Revision = resp.Header.Revision
	return s, nil
}

// DeleteService removes a service and frees its addresses; ErrNoService.
func (r *Registry) DeleteService(ctx context.Context, network, name string) error {
	c, err := r.current()
	if err != nil {
		return err
	}
	for range serviceTries {
		s, err := r.readService(ctx, c, network, name)
		if err != nil {
			return err
		}
		key := r.keys.service(network, name)
		ops := []clientv3.Op{clientv3.OpDelete(key)}
		for _, a := range s.VIPs {
			ops = append(ops, clientv3.OpDelete(r.keys.vip(network, a)))
		}
		resp, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, s.Revision)}, ops, nil)
		if err != nil {
			return fmt.Errorf("remove service %q of network %q: %w", name, network, err)
		}
		if resp.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("remove service %q of network %q: %w: others change it all the time", name, network, overlay.ErrTaken)
}

// onlyServices says that all blocks of a network which are there are those of services. The
// names of hosts begin with a letter or a digit, which stand behind this.
func (r *Registry) onlyServices(network string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(r.keys.blocks(network)).WithPrefix(), "<", `{"node":"*`)
}

// endNetwork removes what a network has in etcd, unless a host has a block of it.
func (r *Registry) endNetwork(ctx context.Context, c *clientv3.Client, network string, s overlay.Shared) error {
	ops := []clientv3.Op{
		clientv3.OpDelete(r.keys.terms(network)), clientv3.OpDelete(r.keys.vni(s.Terms.VNI)),
		clientv3.OpDelete(r.keys.epoch(network)), clientv3.OpDelete(r.keys.secrets(network), clientv3.WithPrefix()),
		clientv3.OpDelete(r.keys.services(network), clientv3.WithPrefix()), clientv3.OpDelete(r.keys.vips(network), clientv3.WithPrefix()),
		clientv3.OpDelete(r.keys.blocks(network), clientv3.WithPrefix()),
	}
	none := clientv3.Compare(clientv3.CreateRevision(r.keys.blocks(network)).WithPrefix(), "=", 0)
	for _, when := range []clientv3.Cmp{none, r.onlyServices(network)} { // a value that is not there compares as nothing
		if _, err := txn(ctx, c, []clientv3.Cmp{when, unchanged(r.keys.terms(network), s.Revision)}, ops, nil); err != nil {
			return err
		}
	}
	return nil
}
