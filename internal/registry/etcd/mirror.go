package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// mirror is what etcd holds below our prefix, by key: read as a whole, and then
// kept up with each change.
type mirror struct {
	keys     keys
	revision int64
	until    int64

	nodes   map[string]announced
	live    map[string]bool
	holds   map[string]bool
	terms   map[string]agreed
	blocks  map[string]map[netip.Prefix]overlay.Holding // by network
	witness *claimed                                    // the latest of blocks; nil: to be looked for
	secrets map[string]map[string]overlay.HostKeys      // by network and host
	epochs  map[string]overlay.KeyEpoch
	evicted map[string]string
	strange map[string]string // what is wrong with a key's value
	// own is what this host announced, by key, and what is there of it.
	own map[string]wanted

	cluster  string // of etcd
	history  history
	joining  map[string]bool
	settling settling

	self     string // this host; empty: none is
	names    names
	services services
	touched  bool // something else than names and services changed since the last view
}

type history struct {
	overlay.History
	revision int64
}

type announced struct {
	nodeValue
	revision int64
}

type agreed struct {
	overlay.Terms
	revision int64
}

func newMirror(k keys) *mirror {
	return &mirror{
		keys: k, nodes: map[string]announced{}, live: map[string]bool{}, holds: map[string]bool{}, terms: map[string]agreed{},
		blocks: map[string]map[netip.Prefix]overlay.Holding{}, strange: map[string]string{}, own: map[string]wanted{},
		secrets: map[string]map[string]overlay.HostKeys{}, epochs: map[string]overlay.KeyEpoch{}, evicted: map[string]string{},
		joining: map[string]bool{}, names: newNames(), services: newServices(), touched: true,
	}
}

// put takes a key over, or notes why it cannot be.
func (m *mirror) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	part := m.keys.split(key)
	m.forget(key, part)
	if w, ours := m.own[key]; ours {
		w.have = kv
		m.own[key] = w
	}
	if err := m.take(part, kv); err != nil {
		m.strange[key], m.touched = fmt.Sprintf("key %s: %v", key, err), true
	}
}

func (m *mirror) take(part []string, kv *mvccpb.KeyValue) (err error) {
	switch {
	case len(part) == 2 && part[0] == "nodes":
		n := announced{revision: kv.ModRevision}
		if err = json.Unmarshal(kv.Value, &n.nodeValue); err == nil {
			m.nodes[part[1]] = n
		}
	case len(part) == 3 && part[0] == "live" && part[1] == "nodes":
		m.live[part[2]] = true
	case len(part) == 2 && part[0] == "holds":
		m.holds[part[1]] = true
	case len(part) == 1 && part[0] == "history":
		var v historyValue
		if err = json.Unmarshal(kv.Value, &v); err == nil {
			m.history = history{overlay.History{Lineage: v.Lineage, Generation: v.Generation, Cluster: v.Cluster}, kv.ModRevision}
		}
	case len(part) == 2 && part[0] == "joining":
		m.joining[part[1]] = true
	case len(part) == 3 && part[0] == "networks" && part[2] == "terms":
		a := agreed{revision: kv.ModRevision}
		if a.Terms, err = decodeTerms(kv.Value); err == nil {
			m.terms[part[1]] = a
		}
	case len(part) == 4 && part[0] == "networks" && part[2] == "blocks":
		var v blockValue
		block, parseErr := netip.ParsePrefix(part[3])
		if err = parseErr; err == nil {
			err = json.Unmarshal(kv.Value, &v)
		}
		if err == nil {
			if m.blocks[part[1]] == nil {
				m.blocks[part[1]] = map[netip.Prefix]overlay.Holding{}
			}
			m.witness = nil
			m.blocks[part[1]][block] = overlay.Holding{Node: v.Node, Revision: kv.ModRevision, Epoch: v.epoch()}
		}
	case isSecret(part):
		err = m.takeSecret(part, kv)
	case part[0] == "names":
		id, is := namedID(part)
		if err = errNotOurs; is {
			err = m.names.put(id, kv)
		}
	case isService(part):
		err = m.services.put(part, kv)
	case part[0] == "vnis" || part[0] == "live" || part[0] == "vips": // for transactions only
	default:
		err = errNotOurs
	}
	return err
}

var errNotOurs = errors.New("is none of ours")

// drop forgets a key.
func (m *mirror) drop(key string) { m.forget(key, m.keys.split(key)) }

func (m *mirror) forget(key string, part []string) {
	if _, was := m.strange[key]; was || !isApart(part) {
		m.touched = true
	}
	delete(m.strange, key)
	if w, ours := m.own[key]; ours {
		w.have = nil
		m.own[key] = w
	}
	switch {
	case len(part) == 2 && part[0] == "nodes":
		delete(m.nodes, part[1])
	case len(part) == 3 && part[0] == "live" && part[1] == "nodes":
		delete(m.live, part[2])
	case len(part) == 2 && part[0] == "holds":
		delete(m.holds, part[1])
	case len(part) == 1 && part[0] == "history":
		m.history = history{}
	case len(part) == 2 && part[0] == "joining":
		delete(m.joining, part[1])
	case len(part) == 3 && part[0] == "networks" && part[2] == "terms":
		delete(m.terms, part[1])
	case len(part) == 4 && part[0] == "networks" && part[2] == "blocks":
		if b, err := netip.ParsePrefix(part[3]); err == nil {
			delete(m.blocks[part[1]], b)
			m.witness = nil
		}
	case isSecret(part):
		m.dropSecret(part)
	case isService(part):
		m.services.drop(part)
	case part[0] == "names":
		if id, is := namedID(part); is {
			m.names.drop(id)
		}
	}
}

// spoilt returns an error that names a key of this host's announcement that
// others removed or changed.
func (m *mirror) spoilt() error {
	for key, w := range m.own {
		switch {
		case w.have == nil:
			return fmt.Errorf("key %s was removed by others: it is put back", key)
		case !w.fits():
			return fmt.Errorf("key %s was changed by others: it is put back", key)
		}
	}
	return nil
}

// view returns a copy.
func (m *mirror) view() overlay.View {
	m.touched = false
	v := overlay.View{
		At: m.moment(), Settled: m.settling.settled, Until: m.until, Members: make(map[string]overlay.Member, len(m.nodes)), Networks: map[string]overlay.Shared{},
		Problems: slices.Sorted(maps.Values(m.strange)),
	}
	for name, n := range m.nodes {
		v.Members[name] = overlay.Member{Name: name, Address: n.Address, Live: m.live[name], Holds: m.holds[name], Revision: n.revision, Also: n.Also}
	}
	for name, t := range m.terms {
		v.Networks[name] = overlay.Shared{Terms: t.Terms, Agreed: true, Revision: t.revision, Blocks: map[netip.Prefix]overlay.Holding{}}
	}
	for name, blocks := range m.blocks {
		s := v.Networks[name]
		s.Blocks = maps.Clone(blocks)
		v.Networks[name] = s
	}
	m.addSecrets(&v)
	return v
}
