package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// PortMapping publishes a port of the host, or a range: what is sent there goes
// to the container.
type PortMapping struct {
	// Protocol is "tcp", "udp" or "sctp"; empty: "tcp".
	Protocol string
	// HostIP is the address of the host. The zero Addr is any, of both
	// families; 0.0.0.0 and :: are any of their own. If the container has no
	// address of the family the mapping is passed over.
	HostIP netip.Addr
	// HostPort is 1 to 65535; 0: a free one out of the host's ephemeral range
	// (net.ipv4.ip_local_port_range), which Ports then tells.
	HostPort int
	// HostPortEnd, if not 0, makes it the range from HostPort to it, both
	// included, which goes to as many ports from ContainerPort on.
	HostPortEnd int
	// ContainerPort is 1 to 65535.
	ContainerPort int
	// Sources [sourceRanges] are the clients that may use it; nil: everybody.
	Sources []netip.Prefix
}

// String is "tcp 0.0.0.0:8080 to 80".
func (m PortMapping) String() string {
	return fmt.Sprintf("%s to %d", m.firewall(), m.ContainerPort)
}

// WithPorts publishes ports of the host for the endpoint.
func WithPorts(ports ...PortMapping) EndpointOption {
	return func(s *endpointSpec) { s.ports = append(s.ports, ports...) }
}

// PortHeldError says that a port of the host is published for another container.
type PortHeldError struct {
	Owner string // "libnet:<network>/<container>/<interface>"
	Port  string // "tcp 0.0.0.0:8080"

	all []firewall.PortMap // of the ports that were asked for
}

// Error names the port and its owner.
func (e *PortHeldError) Error() string {
	return fmt.Sprintf("host port %s is published by %q: choose another one, or stop that container", e.Port, e.Owner)
}

// AddressHeldError says that another endpoint holds an address by the same bridge.
type AddressHeldError struct {
	Owner string // "libnet:<network>/<container>/<interface>"
	Rule  string // of the firewall, as "inet libnet masquerade4 { 10.1.0.2 . br0 }"
}

// Error names the owner and what it holds.
func (e *AddressHeldError) Error() string {
	return fmt.Sprintf("%q holds an address of this endpoint, by %s: remove that container, or give this one another address", e.Owner, e.Rule)
}

// protocols are those that can be published, by name.
var protocols = map[string]firewall.Protocol{"": firewall.TCP, "tcp": firewall.TCP, "udp": firewall.UDP, "sctp": firewall.SCTP}

// validatePorts returns the mappings with what is left out filled in. The error
// is a *ConfigError for "portMappings[i].key".
func validatePorts(ports []PortMapping) ([]PortMapping, error) {
	if len(ports) > maxMappings {
		return nil, model.BadConfig("portMappings", fmt.Sprintf("%d entries", len(ports)), fmt.Sprintf("want %d at most; hostPortEnd makes one entry of a range", maxMappings))
	}
	out := slices.Clone(ports)
	for i, m := range out {
		if key, value, want := m.wrong(); key != "" {
			return nil, model.BadConfig(fmt.Sprintf("portMappings[%d].%s", i, key), value, want)
		}
		if m.Protocol == "" {
			out[i].Protocol = "tcp"
		}
		if m.HostPortEnd == m.HostPort {
			out[i].HostPortEnd = 0
		}
		if len(m.Sources) > maxSources {
			return nil, model.BadConfig(fmt.Sprintf("portMappings[%d].sourceRanges", i), fmt.Sprintf("%d entries", len(m.Sources)), fmt.Sprintf("want %d at most", maxSources))
		}
		for _, s := range m.Sources {
			if !s.IsValid() {
				return nil, model.BadConfig(fmt.Sprintf("portMappings[%d].sourceRanges", i), s, `want prefixes as "10.0.0.0/8"`)
			}
		}
	}
	return out, refuseOverlap(out)
}

// maxMappings bounds what one container publishes, maxSources the clients of
// one port: above, ADD would take seconds. Half of all ports for TCP and UDP, one
// by one, is what a TURN server asks for.
const (
	maxMappings = 65536
	maxSources  = 4096
)

// refuseOverlap returns a *ConfigError if two mappings are of the same port and
// neither is the more specific one; see firewall.Resolve.
func refuseOverlap(ports []PortMapping) error {
	var fixed []firewall.PortMap
	var at []int
	for i, m := range ports {
		if m.HostPort != 0 {
			fixed, at = append(fixed, m.firewall()), append(at, i)
		}
	}
	for _, is4 := range []bool{true, false} {
		_, err := firewall.Resolve(fixed, nil, is4)
		var overlap *firewall.OverlapError
		if errors.As(err, &overlap) {
			i, j := at[overlap.First], at[overlap.Second]
			return model.BadConfig(fmt.Sprintf("portMappings[%d]", j), ports[j],
				fmt.Sprintf("%s leads elsewhere by portMappings[%d], %s; remove one of them", overlap.Port, i, ports[i]))
		}
	}
	return nil
}

// wrong names the key that cannot be, its value, and what would be right.
func (m PortMapping) wrong() (key string, value any, want string) {
	last := max(m.HostPort, m.HostPortEnd)
	_, known := protocols[m.Protocol]
	switch {
	case !known:
		return "protocol", fmt.Sprintf("%q", m.Protocol), `want "tcp", "udp" or "sctp"`
	case m.HostPort < 0 || m.HostPort > 65535:
		return "hostPort", m.HostPort, "want 1 to 65535, or 0 for a free one"
	case m.HostPortEnd != 0 && (m.HostPort == 0 || m.HostPortEnd < m.HostPort || m.HostPortEnd > 65535):
		return "hostPortEnd", m.HostPortEnd, fmt.Sprintf("want 65535 at most and hostPort, %d, or above; a range needs a hostPort", m.HostPort)
	case m.ContainerPort < 1 || m.ContainerPort > 65535:
		return "containerPort", m.ContainerPort, "want 1 to 65535"
	case m.ContainerPort+last-m.HostPort > 65535:
		return "containerPort", m.ContainerPort, fmt.Sprintf("want %d at most: the range has %d ports", 65535-last+m.HostPort, last-m.HostPort+1)
	}
	return "", nil, ""
}

func (m PortMapping) firewall() firewall.PortMap {
	return firewall.PortMap{
		Protocol: protocols[m.Protocol], HostIP: m.HostIP.Unmap(), Sources: m.Sources,
		HostPort: uint16(m.HostPort), HostPortEnd: uint16(m.HostPortEnd), ContainerPort: uint16(m.ContainerPort),
	}
}

func firewallPorts(ports []PortMapping) []firewall.PortMap {
	all := []firewall.PortMap{}
	for _, m := range ports {
		all = append(all, m.firewall())
	}
	return all
}

func savedPorts(ports []PortMapping) []state.Port {
	var all []state.Port
	for _, m := range ports {
		all = append(all, state.Port(m))
	}
	return all
}

func portsOf(rec state.Endpoint) []PortMapping {
	var all []PortMapping
	for _, p := range rec.Ports {
		all = append(all, PortMapping(p))
	}
	return all
}

// asked says whether these are the ports that were asked for, free ones chosen.
func asked(have, want []PortMapping) bool {
	return slices.EqualFunc(have, want, func(h, w PortMapping) bool {
		if w.HostPort == 0 {
			w.HostPort = h.HostPort
		}
		return h.String() == w.String() && slices.Equal(h.Sources, w.Sources)
	})
}

// freePorts is what choosing needs of the kernel.
type freePorts interface {
	EphemeralPorts() (first, last uint16, reserved func(uint16) bool, err error)
	PortInUse(protocol string, ip netip.Addr, port uint16) bool
}

// maxChoices is how many ports are tried for one mapping.
const maxChoices = 100

// choosePorts gives each mapping without a port of the host one that no program
// has and no other mapping of ports has. What other containers have, Apply tells.
func choosePorts(k freePorts, ports []PortMapping) ([]PortMapping, error) {
	out := slices.Clone(ports)
	if !slices.ContainsFunc(out, func(m PortMapping) bool { return m.HostPort == 0 }) {
		return out, nil
	}
	taken := map[firewall.Protocol][]bool{} // by port, of any address
	for _, p := range protocols {
		taken[p] = make([]bool, 1<<16)
	}
	for _, m := range out {
		for port := m.HostPort; port > 0 && port <= max(m.HostPort, m.HostPortEnd); port++ {
			taken[protocols[m.Protocol]][port] = true
		}
	}
	for i := range out {
		if out[i].HostPort != 0 {
			continue
		}
		port, err := choosePort(k, out[i], taken[protocols[out[i].Protocol]])
		if err != nil {
			return nil, fmt.Errorf("portMappings[%d]: %w", i, err)
		}
		out[i].HostPort = port
		taken[protocols[out[i].Protocol]][port] = true
	}
	return out, nil
}

func choosePort(k freePorts, m PortMapping, taken []bool) (int, error) {
	first, last, reserved, err := k.EphemeralPorts()
	if err != nil {
		return 0, err
	}
	for range maxChoices {
		port := int(first) + rand.IntN(int(last)-int(first)+1)
		if !taken[port] && !reserved(uint16(port)) && !k.PortInUse(m.Protocol, m.HostIP, uint16(port)) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("%w: %d ports of %d-%d were tried", ErrNoFreePort, maxChoices, first, last)
}

// ErrNoFreePort says that no port was found for a mapping with host port 0.
var ErrNoFreePort = errors.New("no free port in the ephemeral range")

// publishesLocalhost says that clients on the host use 127.0.0.0/8 to reach one.
func publishesLocalhost(ports []PortMapping) bool {
	return slices.ContainsFunc(ports, func(m PortMapping) bool {
		host := m.HostIP.Unmap()
		return !host.IsValid() || host.Is4() && (host.IsUnspecified() || host.IsLoopback())
	})
}
