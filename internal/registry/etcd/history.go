package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// An etcd that was restored from an older copy has forgotten claims, and would
// give a living host's block to another one. The hosts know the claims that it has
// forgotten, so:
//
//   - Each host remembers the moment at which it last saw etcd, in memory and in
//     its node files, with the blocks of all hosts. When a session begins and etcd
//     lies behind that moment, or is another cluster, the host raises the
//     generation of the history and writes what is missing.
//   - A host that remembers nothing takes no block while others have some, before
//     one that does remember has looked at the same etcd: it writes a key, and
//     any such host deletes it. Where none does, it waits for as long as a host
//     may be silent and live.
//   - Where the history says that etcd is a copy and no host has said that it
//     knows the past, it waits for as long as any host may have blocks.

// settling is what a session finds out before blocks may be taken.
type settling struct {
	settled bool
	waits   time.Duration // until settled, where no host says so; 0: none
}

// begin brings history to what this host knows of the past, and says whether it
// knows any.
func (r *Registry) begin(ctx context.Context, c *clientv3.Client, m *mirror, known []overlay.Known) (s settling, changed bool, err error) {
	now := m.moment()
	memory, err := r.compare(ctx, c, now, known)
	if err != nil {
		return s, false, err
	}
	lost, follows := false, false
	for o, is := range memory {
		lost, follows = lost || is, follows || !is && o.Follows(now)
	}
	others := m.othersHold(r.conf.Self.Name)
	copied := now.Lineage != "" && m.history.Cluster != now.Cluster
	switch {
	case lost:
		changed, err = true, r.restore(ctx, c, m, known, memory)
		s.settled = len(known) > 0
	case now.Lineage == "":
		changed, err = true, r.writeHistory(ctx, c, m, overlay.History{Lineage: rand.Text(), Generation: 1, Cluster: now.Cluster})
		s.settled = true
	case follows || !others && !copied:
		s.settled = true
	}
	switch {
	case s.settled:
	case copied && r.conf.Hold > 0:
		s.waits = r.conf.Hold
	default:
		s.waits = r.conf.Live
	}
	return s, changed, err
}

// compare returns the moments that this host remembers, and whether etcd has
// lost what was there then.
func (r *Registry) compare(ctx context.Context, c *clientv3.Client, now overlay.Moment, known []overlay.Known) (map[overlay.Moment]bool, error) {
	r.mu.Lock()
	all := map[overlay.Moment]bool{r.last: false}
	r.mu.Unlock()
	for _, k := range known {
		all[k.At] = false
	}
	for o := range all {
		lost := o.Lost(now)
		if !lost && o.Follows(now) && o.Witness != "" {
			var err error
			if lost, err = r.contradicts(ctx, c, o); err != nil {
				return nil, err
			}
		}
		all[o] = lost
	}
	return all, nil
}

// contradicts says that etcd had another past at a moment than this host saw.
func (r *Registry) contradicts(ctx context.Context, c *clientv3.Client, o overlay.Moment) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got, err := c.Get(ctx, o.Witness, clientv3.WithRev(o.Revision))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return false, nil // it has gone on for long since
	case errors.Is(err, rpctypes.ErrFutureRev):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read %s: %w", o.Witness, err)
	}
	return len(got.Kvs) == 0 || got.Kvs[0].ModRevision != o.WitnessRevision, nil
}

// remember notes the moment, once what etcd has is complete.
func (r *Registry) remember(m *mirror) {
	if !m.settling.settled {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = m.moment()
}

func (m *mirror) moment() overlay.Moment {
	at := overlay.Moment{History: m.history.History, Revision: m.revision}
	at.Cluster = m.cluster
	if m.witness == nil {
		m.witness = m.lastClaim()
	}
	at.Witness, at.WitnessRevision = m.witness.key, m.witness.revision
	return at
}

// claimed is a block's key.
type claimed struct {
	key      string
	revision int64
}

// lastClaim is the latest one.
func (m *mirror) lastClaim() *claimed {
	var last claimed
	for network, blocks := range m.blocks {
		for b, h := range blocks {
			if h.Revision > last.revision {
				last = claimed{m.keys.block(network, b), h.Revision}
			}
		}
	}
	return &last
}

// othersHold says that another host has a block.
func (m *mirror) othersHold(self string) bool {
	for _, blocks := range m.blocks {
		for _, h := range blocks {
			if h.Node != self {
				return true
			}
		}
	}
	return false
}

// writeHistory writes the history, unless another host was faster.
func (r *Registry) writeHistory(ctx context.Context, c *clientv3.Client, m *mirror, h overlay.History) error {
	key := r.keys.history()
	value := encode(historyValue{h.Lineage, h.Generation, h.Cluster})
	if _, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, m.history.revision)}, []clientv3.Op{clientv3.OpPut(key, value)}, nil); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// restore writes what this host knows and etcd has forgotten. Of a block that
// etcd has as another host's, it writes only its own, if its claim is the later one.
func (r *Registry) restore(ctx context.Context, c *clientv3.Client, m *mirror, known []overlay.Known, memory map[overlay.Moment]bool) error {
	now, h := m.moment(), m.history.History
	for o, lost := range memory {
		if lost && o.Generation >= h.Generation { // no agent has recorded it yet
			h = overlay.History{Lineage: o.Lineage, Generation: o.Generation + 1, Cluster: now.Cluster}
		}
	}
	if h != m.history.History {
		if err := r.writeHistory(ctx, c, m, h); err != nil {
			return err
		}
	}
	for _, k := range known {
		if !memory[k.At] {
			continue
		}
		for _, host := range k.Hosts {
			if err := r.restoreHost(ctx, c, m, k.Network, host); err != nil {
				return fmt.Errorf("restore what etcd has lost of node %s: %w", host.Name, err)
			}
		}
	}
	return nil
}

func (r *Registry) restoreHost(ctx context.Context, c *clientv3.Client, m *mirror, network string, host overlay.KnownHost) error {
	own := host.Name == r.conf.Self.Name
	if !own {
		if err := r.restoreHold(ctx, c, m, host); err != nil {
			return err
		}
	}
	for _, b := range slices.SortedFunc(maps.Keys(host.Blocks), netip.Prefix.Compare) {
		have, taken := m.blocks[network][b]
		if taken && (have.Node == host.Name || !own || have.Epoch.Compare(host.Blocks[b]) >= 0) {
			continue
		}
		key := r.keys.block(network, b)
		put := clientv3.OpPut(key, encodeBlock(host.Name, host.Blocks[b]))
		if _, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, have.Revision)}, []clientv3.Op{put}, nil); err != nil {
			return err
		}
	}
	return nil
}

// restoreHold lets a host that is not there itself keep its blocks for as long
// as if it had been heard of now. Its address is written after that: a host without a hold
// is taken for one that is gone.
func (r *Registry) restoreHold(ctx context.Context, c *clientv3.Client, m *mirror, host overlay.KnownHost) error {
	if !m.holds[host.Name] {
		var id clientv3.LeaseID
		if r.conf.Hold > 0 {
			var err error
			if id, err = r.leaseOf(ctx, c, nil, r.conf.Hold); err != nil {
				return err
			}
		}
		key := r.keys.holds(host.Name)
		put := clientv3.OpPut(key, encode(holdsValue{int64(r.conf.Hold.Seconds())}), clientv3.WithLease(id))
		resp, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, 0)}, []clientv3.Op{put}, nil)
		if err == nil && !resp.Succeeded && id != 0 { // it is back itself, or another host wrote it
			err = r.revoke(ctx, c, id)
		}
		if err != nil {
			return err
		}
	}
	if _, there := m.nodes[host.Name]; there {
		return nil
	}
	key := r.keys.node(host.Name)
	_, err := txn(ctx, c, []clientv3.Cmp{unchanged(key, 0)}, []clientv3.Op{clientv3.OpPut(key, encode(nodeValue{Address: host.Address}))}, nil)
	return err
}

func (r *Registry) revoke(ctx context.Context, c *clientv3.Client, id clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := c.Revoke(ctx, id)
	return err
}

// askOthers writes the key by which this host asks those that remember.
func (r *Registry) askOthers(ctx context.Context, c *clientv3.Client, l leases) error {
	key := r.keys.joining(r.conf.Self.Name)
	if _, err := txn(ctx, c, nil, []clientv3.Op{clientv3.OpPut(key, encode(joiningValue{r.conf.Self.Instance}), clientv3.WithLease(l.live))}, nil); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// answerers bounds how many hosts answer one that asks.
const answerers = 3

// answer says to hosts that ask that this one remembers, and has looked. Only a
// few do, or a thousand would answer each.
func (r *Registry) answer(ctx context.Context, c *clientv3.Client, m *mirror) error {
	self := r.conf.Self.Name
	if !m.settling.settled || len(m.joining) == 0 || !slices.Contains(m.remembering(), self) {
		return nil
	}
	if len(m.joining) == 1 && m.joining[self] {
		return nil
	}
	// A watch goes on over a restart of etcd, and does not tell that this is an
	// older copy now.
	now, err := r.read(ctx, c)
	if err != nil {
		return err
	}
	if m.forgotten(now) {
		return errOtherPast
	}
	var errs []error
	for name := range m.joining {
		if name != self {
			errs = append(errs, r.deleteAll(ctx, c, r.keys.joining(name)))
		}
	}
	return errors.Join(errs...)
}

// errOtherPast ends a session: the next one looks at what is lost.
var errOtherPast = errors.New("etcd is not the one of before: it was restored from an older copy")

// forgotten says that a claim which the session has seen is not there any more
// as it was made, though nothing came that says so. A change that is on its way
// looks the same, and costs a session.
func (m *mirror) forgotten(now *mirror) bool {
	for network, blocks := range m.blocks {
		for b, h := range blocks {
			if now.blocks[network][b] != h {
				return true
			}
		}
	}
	return now.cluster != m.cluster
}

// sameEtcd says whether an answer can be of the etcd of the session. One of a
// member that lags behind is no proof, so all of them are asked then.
func (r *Registry) sameEtcd(ctx context.Context, c *clientv3.Client, h *etcdserverpb.ResponseHeader) error {
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	other := func(h *etcdserverpb.ResponseHeader) bool {
		return last.Lineage != "" && (h.GetRevision() < last.Revision || clusterName(h.GetClusterId()) != last.Cluster)
	}
	if !other(h) {
		return nil
	}
	got, err := ask(ctx, c, clientv3.OpGet(r.keys.history()))
	if err == nil && other(got.Header) {
		err = errOtherPast
	}
	return err
}

// remembering returns the first living hosts that have blocks and do not ask.
func (m *mirror) remembering() []string {
	all := map[string]bool{}
	for _, blocks := range m.blocks {
		for _, h := range blocks {
			if m.live[h.Node] && !m.joining[h.Node] {
				all[h.Node] = true
			}
		}
	}
	first := slices.Sorted(maps.Keys(all))
	return first[:min(len(first), answerers)]
}

// clusterName is what etcd calls itself.
func clusterName(id uint64) string { return strconv.FormatUint(id, 16) }
