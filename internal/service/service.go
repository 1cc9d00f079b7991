package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Affinity says whether the connections of one client lead to one backend.
type Affinity string

// The kinds of affinity.
const (
	AffinityNone   Affinity = "none"   // each connection is for itself
	AffinityClient Affinity = "client" // by the client's address, while the backends stay the same
)

// External says to which containers the published port of a host leads.
type External string

// The kinds of External.
const (
	ExternalNAT      External = "nat"      // of all hosts; those of others see this host as the client
	ExternalLocal    External = "local"    // of this host
	ExternalPreserve External = "preserve" // of all hosts; all see the client
)

// Port is a port of a service, and the port of its backends that it leads to.
type Port struct {
	Protocol firewall.Protocol // TCP, UDP or SCTP
	Port     uint16
	Target   uint16
}

// String is "80:8080/tcp".
func (p Port) String() string {
	return fmt.Sprintf("%d:%d/%s", p.Port, p.Target, p.Protocol)
}

// Service is the definition of a service. It is kept as JSON.
type Service struct {
	Network string
	Name    string
	// Select is the name or alias by which containers of the network are backends.
	Select string
	// VIPs are the addresses of the service, one of each family at most; none: clients
	// find the backends by names alone.
	VIPs     []netip.Addr
	Leased   bool // the VIPs are leases of the network's pool
	Ports    []Port
	Affinity Affinity
	// Weights are those of containers, by ID, that have another one than 1. A backend of
	// weight 0 is drained: it keeps its connections and gets no new ones.
	Weights map[string]int `json:",omitempty"`
	// StartDrained has a container be drained until it is given a weight: an ADD comes
	// before its program listens.
	StartDrained bool `json:",omitempty"`
	// Shared: the network spans hosts, whose registry has the definition. What this host has
	// of it follows that, by ln-agent.
	Shared bool `json:",omitempty"`
	// Published are the ports of the host by which the service is reached, too.
	Published []Published `json:",omitempty"`
	// Health is how its containers are checked.
	Health Health `json:",omitzero"`
	// External says to which containers a published port of a host leads, where the network
	// spans several; empty: it does not, or there is none.
	External External `json:",omitempty"`
}

// MaxWeight is the greatest weight of a backend.
const MaxWeight = 1000

// ErrInvalid is a definition that cannot be.
var ErrInvalid error = &sentinel.Error{Text: "invalid service"}

func invalid(key string, value any, want string) error {
	return fmt.Errorf("%w: %s %v: %s", ErrInvalid, key, value, want)
}

// Check says which key of the definition cannot be; the error is ErrInvalid.
func (s Service) Check() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if !model.ValidDNSName(s.Select) || strings.HasSuffix(s.Select, ".") {
		return invalid("select", strconv.Quote(s.Select), model.WantDNSName)
	}
	if s.Affinity != AffinityNone && s.Affinity != AffinityClient {
		return invalid("affinity", strconv.Quote(string(s.Affinity)), "want none or client")
	}
	if len(s.VIPs) > 0 && len(s.Ports) == 0 {
		return invalid("port", "[]", "want at least one port, as 80:8080/tcp")
	}
	if len(s.Ports) > maxPorts {
		return invalid("port", len(s.Ports), fmt.Sprintf("want at most %d ports", maxPorts))
	}
	for i, p := range s.Ports {
		same := func(q Port) bool { return p.Protocol == q.Protocol && p.Port == q.Port }
		if slices.ContainsFunc(s.Ports[:i], same) {
			return invalid("port", p, "is given twice")
		}
	}
	for id, w := range s.Weights {
		if w < 0 || w > MaxWeight {
			return invalid("weight of "+id, w, fmt.Sprintf("want 0 to %d", MaxWeight))
		}
	}
	switch s.External {
	case "", ExternalNAT, ExternalLocal, ExternalPreserve:
	default:
		return invalid("external", strconv.Quote(string(s.External)), "want nat, local or preserve")
	}
	if err := s.checkHealth(); err != nil {
		return err
	}
	return s.checkPublished()
}

// checkName refuses what is no name of a service, or leads to something else in DNS: names
// are the same there in upper and lower case (RFC 4343), so that only one form is taken.
func checkName(name string) error {
	bad := func(want string) error { return invalid("name", strconv.Quote(name), want) }
	switch lower := strings.ToLower(name); {
	case strings.HasPrefix(lower, "tasks."):
		return bad("is the name by which DNS tells the containers of a service: want another one, without dots")
	case lower == "gateway" || lower == "host" || strings.HasPrefix(lower, "host."):
		return bad("leads to the host in DNS: want another one")
	case strings.Contains(name, "."):
		return bad("want a name without dots: the network and its domain stand behind them in DNS")
	case name != lower:
		return bad(fmt.Sprintf("want lower case, %q: names in DNS are the same in both", lower))
	case !model.ValidDNSName(name) || strings.HasPrefix(name, "_") || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") || len(name) > maxName:
		return bad(fmt.Sprintf("want letters, digits, and '-' between them, at most %d", maxName))
	}
	return nil
}

const (
	maxName  = 63 // bytes: of its lease's file, and of a label of DNS
	maxPorts = 64 // each is 64 elements and more
)

// ParsePort reads "80:8080/tcp"; "80" is "80:80/tcp". The error is ErrInvalid.
func ParsePort(text string) (p Port, err error) {
	ports, protocol, has := strings.Cut(text, "/")
	if !has {
		protocol = "tcp"
	}
	p.Protocol, err = parseProtocol(protocol)
	from, to, both := strings.Cut(ports, ":")
	if !both {
		to = from
	}
	for _, part := range []struct {
		text string
		to   *uint16
	}{{from, &p.Port}, {to, &p.Target}} {
		n, numberErr := strconv.ParseUint(part.text, 10, 16)
		if err != nil || numberErr != nil || n == 0 {
			return Port{}, invalid("port", strconv.Quote(text), "want PORT:TARGET/PROTOCOL as 80:8080/tcp: ports from 1 to 65535, tcp, udp or sctp")
		}
		*part.to = uint16(n)
	}
	return p, nil
}

func parseProtocol(text string) (firewall.Protocol, error) {
	for _, p := range []firewall.Protocol{firewall.TCP, firewall.UDP, firewall.SCTP} {
		if strings.EqualFold(text, p.String()) {
			return p, nil
		}
	}
	return 0, ErrInvalid
}

// Selects says whether a container that has these names is a backend.
func (s Service) Selects(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, s.Select) })
}

// Weight returns the weight of a container.
func (s Service) Weight(containerID string) int {
	if w, has := s.Weights[containerID]; has {
		return w
	}
	if s.StartDrained {
		return 0
	}
	return 1
}

// Backend is a container of the network that the service selects.
type Backend struct {
	ContainerID string
	IfName      string
	Names       []string
	Addresses   []netip.Addr
	// Node is the host of the container, where the service is Shared; empty: this one.
	Node string `json:",omitempty"`
	// NodeAddresses are those of Node, where it is another host and the service preserves the
	// addresses of clients.
	NodeAddresses []netip.Addr `json:",omitempty"`
	// Well: the last check of the backend succeeded, where the service has one.
	Well bool `json:",omitempty"`
}

// Key tells the backend from others of its network.
func (b Backend) Key() string { return b.ContainerID + ":" + b.IfName }

// A service holds its addresses in the pool of its network like a container of this name.
const (
	leasePrefix = "service."
	leaseIfName = "vip"
)

// Lease returns as which container and interface a service holds its addresses.
func Lease(name string) (containerID, ifName string) { return leasePrefix + name, leaseIfName }

// OfLease is the inverse of Lease.
func OfLease(containerID, ifName string) (name string, ok bool) {
	name, ok = strings.CutPrefix(containerID, leasePrefix)
	return name, ok && ifName == leaseIfName
}
