package engine

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// fingerprint tells one configuration from another without encoding it. Every
// ADD asks for it: by encoding/json it costs 5 % of an ADD's CPU time
// (BenchmarkFingerprint).
func (n *Network) fingerprint() string {
	if n.hosts.seen != nil {
		return n.hosts.seen.Fingerprint
	}
	return n.fingerprintOf(n.def.Config)
}

// fingerprintOf is that of the network with another configuration.
func (n *Network) fingerprintOf(c model.NetworkConfig) string {
	if pool, ok := n.ipam.(*address.Pool); ok {
		saved := pool.Saved()
		return withLayers(fingerprint(c, &saved), n.layers)
	}
	return withLayers(fingerprint(c, nil), n.layers)
}

// withLayers is a fingerprint with what the record keeps of layers.
func withLayers(print string, layers []byte) string {
	if len(layers) == 0 {
		return print
	}
	d := fnv1a(offset64)
	d.text(print)
	d.text(string(layers))
	return strconv.FormatUint(uint64(d), 16)
}

// fingerprint is that of a network with this pool; nil: its addresses come from elsewhere.
func fingerprint(c model.NetworkConfig, pool *address.SavedPool) string {
	d := fnv1a(offset64)
	d.config(c)
	if pool != nil {
		d.pool(*pool)
	}
	return strconv.FormatUint(uint64(d), 16)
}

// fnv1a is the FNV-1a hash, of 64 bits, of values, each of which ends where the
// next begins.
type fnv1a uint64

const (
	offset64 = 14695981039346656037
	prime64  = 1099511628211
)

func (d *fnv1a) octet(b byte) { *d = (*d ^ fnv1a(b)) * prime64 }

func (d *fnv1a) number(n int) {
	for v := uint64(n); ; v >>= 7 {
		if v < 0x80 {
			d.octet(byte(v))
			return
		}
		d.octet(byte(v) | 0x80)
	}
}

func (d *fnv1a) text(s string) {
	d.number(len(s))
	for i := range len(s) {
		d.octet(s[i])
	}
}

func (d *fnv1a) flags(all ...bool) {
	for _, b := range all {
		if b {
			d.octet(1)
		} else {
			d.octet(0)
		}
	}
}

func (d *fnv1a) addr(a netip.Addr) {
	d.number(a.BitLen())
	for _, b := range a.As16() {
		d.octet(b)
	}
	d.text(a.Zone())
}

func (d *fnv1a) prefix(p netip.Prefix) {
	d.addr(p.Addr())
	d.number(p.Bits())
}

// list begins a list, whose elements follow.
func list[T any](d *fnv1a, all []T, each func(T)) {
	d.number(len(all))
	for _, v := range all {
		each(v)
	}
}

func (d *fnv1a) config(c model.NetworkConfig) {
	d.flags(c.AutoMTU, c.Gateway, c.DefaultGateway, c.ForceAddress, c.Masquerade, c.Hairpin, c.Promiscuous,
		c.PreserveDefaultVLAN, c.SpoofCheck, c.EnableDAD, c.InterfaceDown, c.Isolated, c.Internal, c.NoICC,
		c.NoMasquerade, c.NoHairpin, c.MasqueradeAll, c.NoHost)
	d.number(c.MTU)
	d.number(c.VLAN)
	list(d, c.VLANTrunk, func(r model.VLANRange) {
		d.number(int(r.Min))
		d.number(int(r.Max))
	})
	d.number(int(c.AcceptFwMark.Value))
	d.number(int(c.AcceptFwMark.Mask))
	for _, s := range []string{c.Bridge, string(c.GatewayModeIPv4), string(c.GatewayModeIPv6), string(c.IngressPolicy), string(c.Backend)} {
		d.text(s)
	}
	d.addr(c.SNATIPv4)
	d.addr(c.SNATIPv6)
	list(d, c.TrustedInterfaces, d.text)
	d.tunnel(c.Tunnel)
	if c.GatewayPriority != 0 { // as before there was one
		d.number(c.GatewayPriority)
	}
	if c.FastPath != "" {
		d.text(string(c.FastPath))
	}
	if c.Tunnel.DirectRouting {
		d.text("directRouting")
	}
}

func (d *fnv1a) tunnel(t model.TunnelConfig) {
	list(d, t.Nodes, func(n model.Node) {
		d.addr(n.Address)
		list(d, n.Subnets, d.prefix)
	})
	d.addr(t.Self)
	list(d, t.Subnets, d.prefix)
	d.number(t.VNI)
	d.number(t.Port)
	d.text(t.Device)
	d.flags(t.Agent)
	keyed := func(n model.Node) bool { return !n.PublicKey.IsZero() }
	if t.Encrypted() || t.PrivateKeyFile != "" || slices.ContainsFunc(t.Nodes, keyed) { // else as before there were any
		d.text(string(t.Encryption))
		d.text(t.PrivateKeyFile)
		list(d, t.Nodes, func(n model.Node) { d.text(string(n.PublicKey[:])) })
	}
}

func (d *fnv1a) pool(p address.SavedPool) {
	d.text(p.DataDir)
	list(d, p.Sets, func(s ipamstore.RangeSet) {
		list(d, s, func(r ipamstore.Range) {
			d.prefix(r.Subnet)
			d.addr(r.Start)
			d.addr(r.End)
			d.addr(r.Gateway)
		})
	})
	list(d, p.Exclude, d.prefix)
	list(d, sorting.Keys(p.Aux), func(name string) {
		d.text(name)
		d.addr(p.Aux[name])
	})
	d.text(string(p.Strategy))
	d.text(string(p.RebootPolicy))
	d.flags(p.Sticky)
	d.number(int(p.Cooldown))
	d.number(p.WarnAt)
	d.addressing(p.Extra)
}

func (d *fnv1a) addressing(a model.Addressing) {
	list(d, a.Addresses, func(addr model.Address) {
		d.prefix(addr.Prefix)
		d.addr(addr.Gateway)
	})
	list(d, a.Routes, func(r model.Route) { d.text(r.String()) })
	d.text(a.DNS.Domain)
	for _, words := range [][]string{a.DNS.Nameservers, a.DNS.Search, a.DNS.Options} {
		list(d, words, d.text)
	}
}

// hosts is what is known of a list of the network's hosts, which can be long.
type hosts struct {
	list string         // its digest; empty: nothing is noted of it
	seen *nodefile.Seen // what an earlier call noted: the configuration has this host alone; nil: it has all
	all  func() ([]model.Node, error)
}

// WithSeen tells a list of hosts from others by its digest. If an earlier call has seen it, the
// configuration needs this host alone; all reads the list.
func WithSeen(list string, seen *nodefile.Seen, all func() ([]model.Node, error)) NetworkOption {
	return func(s *networkSpec) { s.hosts = hosts{list, seen, all} }
}

// trust has the next steps do without the network's other hosts, if nothing that tells has changed
// since an earlier call saw to all of them; else it reads the list. The caller owns the
// attachment, so the network's record stays.
func (manyHosts) trust(n *Network) error {
	seen := n.hosts.seen
	if seen == nil {
		return nil
	}
	t := n.def.Config.Tunnel
	if n.fingerprintOf(n.def.Config) == seen.Config && n.c.networks.HasNetwork(n.def.Name, seen.Fingerprint) {
		index, err := n.c.tunnels.LeadsTo(n.Plan().TunnelName(), model.NetworkOwner(n.def.Name), seen.PeerBlocks)
		path := seen.Path
		if err == nil && path != 0 {
			path, err = n.c.basis.PathMTU(t.Self, []netip.Addr{seen.Peer}, t.Device)
		}
		if err == nil && index == seen.Device && path == seen.Path {
			return nil
		}
	}
	return n.readHosts()
}

// readHosts completes the configuration.
func (n *Network) readHosts() (err error) {
	n.hosts.seen = nil
	if n.def.Config.Tunnel.Nodes, err = n.hosts.all(); err != nil {
		return err
	}
	return n.def.Config.Validate()
}

// note has later calls trust what this one, which has seen to all hosts, has left. The network is
// as configured; mtu is what became of that. It only saves time: that it fails is no error.
func (manyHosts) note(n *Network, mtu int) {
	if n.hosts.seen != nil {
		return
	}
	t := n.def.Config.Tunnel
	seen := nodefile.See(n.hosts.list, t)
	if seen == nil {
		return
	}
	index, err := n.c.tunnels.LeadsTo(n.Plan().TunnelName(), model.NetworkOwner(n.def.Name), seen.PeerBlocks)
	if err == nil && n.def.Config.AutoMTU && n.def.Config.MTU == 0 {
		seen.MTU = mtu
		seen.Path, err = n.c.basis.PathMTU(t.Self, []netip.Addr{seen.Peer}, t.Device)
	}
	if err != nil {
		return
	}
	alone := n.def.Config
	alone.Tunnel.Nodes = []model.Node{seen.Node()}
	seen.Device, seen.Config, seen.Fingerprint = index, n.fingerprintOf(alone), n.fingerprint()
	_ = n.c.nodeFiles.SaveSeen(n.def.Name, seen.Encode())
}

// notes is what a network's record keeps for its makers. Nothing here acts by it.
type notes struct {
	Labels  map[string]string `json:",omitempty"`
	Options map[string]any    `json:",omitempty"` // of the driver
	// IPAMConf is the configuration of an IPAM that is not a Pool; nil: unknown.
	IPAMConf json.RawMessage `json:",omitempty"`
}

// WithIPAMConf keeps the configuration that the network's IPAM has, for FromConf.
func WithIPAMConf(conf json.RawMessage) NetworkOption {
	return func(s *networkSpec) { s.notes.IPAMConf = conf }
}

// FromConf returns the network with the IPAM that make has for the configuration of
// WithIPAMConf; the network itself if there is none, or make returns nil.
func (n *Network) FromConf(make func(kind string, conf json.RawMessage) address.IPAM) *Network {
	if n.ipam != nil || n.notes.IPAMConf == nil {
		return n
	}
	if ipam := make(n.foreign, n.notes.IPAMConf); ipam != nil {
		n = n.own()
		n.ipam = ipam
	}
	return n
}

// WithLayers keeps what the network's configuration was laid upon, in JSON, for RecordedLayers.
func WithLayers(layers json.RawMessage) NetworkOption {
	return func(s *networkSpec) { s.layers = layers }
}

// WithLabels keeps labels with the network.
func WithLabels(labels map[string]string) NetworkOption {
	return func(s *networkSpec) { s.notes.Labels = maps.Clone(labels) }
}

// WithDriverOptions keeps the options that the configuration was made of.
func WithDriverOptions(options map[string]any) NetworkOption {
	return func(s *networkSpec) { s.notes.Options = maps.Clone(options) }
}

// Labels returns a copy of the network's labels.
func (n *Network) Labels() map[string]string { return maps.Clone(n.notes.Labels) }

// DriverOptions returns a copy of the options that the network was made of.
func (n *Network) DriverOptions() map[string]any { return maps.Clone(n.notes.Options) }

// keepNotes has what a caller does not know of, as a plugin that brings its whole
// configuration, outlive the network's new record.
func (n *Network) keepNotes() {
	rec, err := n.c.networks.LoadNetwork(n.def.Name)
	if err != nil {
		return // there is nothing to keep
	}
	old, err := n.c.networkOf(rec)
	if err != nil {
		return
	}
	n.kept = n.kept || old.kept
	if n.notes.Labels == nil && n.notes.Options == nil && n.notes.IPAMConf == nil {
		n.notes = old.notes
	}
}

// ID returns a hash of the network's name.
func (n *Network) ID() string { return model.Digest(model.NetworkOwner(n.def.Name)) }
