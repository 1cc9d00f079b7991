package state

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// Phase says how far the making of an attachment got.
type Phase string

// The phases in order. A record that is not PhaseReady was left by a process
// that died, or belongs to one that is still at work.
const (
	PhaseIntent Phase = "intent" // nothing is promised to exist yet
	PhaseLeased Phase = "leased" // addresses are held, no link yet
	PhaseReady  Phase = "ready"  // complete
)

// Network is the record of one network.
type Network struct {
	Name   string
	Driver string // "bridge"
	Bridge string // name of the bridge on this host
	// Fingerprint of Config, to see a change without decoding it.
	Fingerprint string
	Config      json.RawMessage `json:",omitempty"` // the driver's configuration; only its writer reads it
	// Layers is what the configuration was laid upon, as its reader wrote it; nil: nothing.
	Layers json.RawMessage `json:",omitempty"`
	// Rebuilt says that the record was lost, and that it is not known what the configuration was
	// laid upon. A record that is read does not say so: see Dir.Layers.
	Rebuilt bool `json:"-"`
}

// NetnsID tells one network namespace from every other of this boot.
type NetnsID struct {
	Dev, Ino uint64
	Cookie   uint64 // 0: the kernel has none (before 5.14)
}

// Address is one address of an attachment.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // zero: none
}

// Route is a route in the container.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // zero: on-link

	MTU, AdvMSS, Priority int  // 0: unset
	Table, Scope          *int // nil: unset
}

// DNS is what the IPAM said of name servers.
type DNS struct {
	Nameservers []string
	Domain      string
	Search      []string
	Options     []string
}

// Link is an interface of the attachment.
type Link struct {
	Name string
	MAC  string
	MTU  int // bytes; 0: unknown
	// Netns is the path of its network namespace; empty: the host's.
	Netns string
}

// Endpoint is the record of one attachment.
type Endpoint struct {
	Network, ContainerID, IfName string

	Phase   Phase
	Boot    string  // boot ID of the kernel that was running
	Netns   string  // path; empty: not joined yet
	NetnsID NetnsID // zero: not joined yet
	// MountNS is the mount namespace in which Netns was opened; empty: unknown.
	MountNS  string
	IPAM     string // type of the IPAM that gave the addresses; empty: none
	DataDir  string // where the leases are, when the IPAM is ours
	Bridge   string
	HostName string // host end of the veth
	MAC      string
	Rules    bool   // there may be firewall elements
	Backend  string // of the firewall; empty: nftables
	Guard    string // ID of what its network asked of the bridge; empty: unknown
	Runtime  string // program that asked for it; empty: unknown
	// Workload is what the runtime calls what the container belongs to, as "namespace/pod", and
	// PodUID tells one pod of that name from the next; empty: unknown.
	Workload string `json:",omitempty"`
	PodUID   string `json:",omitempty"`
	// Tunnel is the device of its network as it came, if that was encrypted; empty: the
	// VXLAN device, or none.
	Tunnel string `json:",omitempty"`
	// Spare is the second device that its network may have had; empty: none.
	Spare string `json:",omitempty"`
	// GatewayPriority of this network among those of the container.
	GatewayPriority int `json:",omitempty"`
	// LinkName is the interface's name in the container; empty: IfName.
	LinkName string `json:",omitempty"`
	// NextName says that Join chooses LinkName: the first of eth0, eth1 and so on
	// that is free in the container.
	NextName bool `json:",omitempty"`

	// Names by which the network's other containers find it; nil: the network
	// has no names.
	Names *Names `json:",omitempty"`

	// Fast is the index of the host's end of the veth, whose packets may go the fast path;
	// 0: they do not.
	Fast int `json:",omitempty"`

	// OwnRules is what its own rules were made for; nil: unknown.
	OwnRules *OwnRules `json:",omitempty"`

	Addresses []Address
	Routes    []Route
	DNS       DNS
	Links     []Link // known once it is ready
	Ports     []Port
	Config    json.RawMessage `json:",omitempty"` // of a publication; only its writer reads it
}

// Names are what an attachment is called on its network.
type Names struct {
	Own    []string // the best one first
	Domain string   // of the network; empty: none
	// Responder is "bpf" if the kernel answers for them; empty: ln-agent alone does.
	Responder string `json:",omitempty"`
	// Link is the index of the host's end of the veth, which the kernel answers by; 0: none yet.
	Link int `json:",omitempty"`
}

// Equal says whether both have the same names, answered in the same way; nil is equal to
// nil only.
func (n *Names) Equal(o *Names) bool {
	if n == nil || o == nil {
		return n == o
	}
	return n.Domain == o.Domain && n.Responder == o.Responder && n.Link == o.Link && slices.Equal(n.Own, o.Own)
}

// OwnRules are the choices by which an attachment's own rules are made again,
// whatever the network's configuration says meanwhile.
type OwnRules struct {
	MasqueradeIPv4, MasqueradeIPv6       bool
	SpoofCheck, NoHairpin, MasqueradeAll bool
	Source                               []netip.Addr // fixed, in place of the interface's; nil: none
}

// Port is a published port of the host, or a range of them.
type Port struct {
	Protocol      string
	HostIP        netip.Addr // zero: any
	HostPort      int
	HostPortEnd   int // 0: HostPort
	ContainerPort int
	Sources       []netip.Prefix // nil: all
}

// Sandbox is the record of a container's network namespace.
type Sandbox struct {
	ID   string
	Path string
	// Adopted says that libnet did not make it, and so does not remove it.
	Adopted bool `json:",omitempty"`
}

// Inside is the name of the interface in the container.
func (e Endpoint) Inside() string {
	if e.LinkName != "" {
		return e.LinkName
	}
	return e.IfName
}

// Addrs returns the addresses of the attachment; not nil.
func (e Endpoint) Addrs() []netip.Addr {
	all := []netip.Addr{}
	for _, a := range e.Addresses {
		all = append(all, a.Prefix.Addr())
	}
	return all
}

// NamedAddrs returns the addresses that the endpoint's names lead to, and those of its gateways,
// each of which is there: the record of an ADD under way may lack them.
func (e Endpoint) NamedAddrs() (addrs, gateways []netip.Addr) {
	for _, a := range e.Addresses {
		if a.Prefix.IsValid() {
			addrs = append(addrs, a.Prefix.Addr())
		}
		if a.Gateway.IsValid() {
			gateways = append(gateways, a.Gateway)
		}
	}
	return addrs, gateways
}

// IsPublication says that the record is of ports published beside another plugin's
// interface.
func (e Endpoint) IsPublication() bool { return e.HostName == "" }
