package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
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
	// Sources [sourceRanges] are the clients that may use it; nil: all.
	Sources []netip.Prefix
}

// String is "tcp 0.0.0.0:8080 to 80".
func (m PortMapping) String() string {
	return fmt.Sprintf("%s to %d", m.Firewall(), m.ContainerPort)
}

// protocolOf returns a protocol that can be published, by its name; none is TCP.
func protocolOf(name string) (p firewall.Protocol, known bool) {
	switch name {
	case "", "tcp":
		return firewall.TCP, true
	case "udp":
		return firewall.UDP, true
	case "sctp":
		return firewall.SCTP, true
	}
	return 0, false
}

// ValidatePorts returns the mappings with what is left out filled in. The error
// is a *ConfigError for "portMappings[i].key".
func ValidatePorts(ports []PortMapping) ([]PortMapping, error) {
	if len(ports) > maxMappings {
		return nil, BadConfig("portMappings", fmt.Sprintf("%d entries", len(ports)), fmt.Sprintf("want %d at most; hostPortEnd makes one entry of a range", maxMappings))
	}
	out := slices.Clone(ports)
	for i, m := range out {
		if key, value, want := m.wrong(); key != "" {
			return nil, BadConfig(fmt.Sprintf("portMappings[%d].%s", i, key), value, want)
		}
		if m.Protocol == "" {
			out[i].Protocol = "tcp"
		}
		if m.HostPortEnd == m.HostPort {
			out[i].HostPortEnd = 0
		}
		if len(m.Sources) > maxSources {
			return nil, BadConfig(fmt.Sprintf("portMappings[%d].sourceRanges", i), fmt.Sprintf("%d entries", len(m.Sources)), fmt.Sprintf("want %d at most", maxSources))
		}
		for _, s := range m.Sources {
			if !s.IsValid() {
				return nil, BadConfig(fmt.Sprintf("portMappings[%d].sourceRanges", i), s, `want prefixes as "10.0.0.0/8"`)
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
			fixed, at = append(fixed, m.Firewall()), append(at, i)
		}
	}
	for _, is4 := range []bool{true, false} {
		_, err := firewall.Resolve(fixed, nil, is4)
		var overlap *firewall.OverlapError
		if errors.As(err, &overlap) {
			i, j := at[overlap.First], at[overlap.Second]
			return BadConfig(fmt.Sprintf("portMappings[%d]", j), ports[j],
				fmt.Sprintf("%s leads elsewhere by portMappings[%d], %s; remove one of them", overlap.Port, i, ports[i]))
		}
	}
	return nil
}

// wrong names the key that cannot be, its value, and what would be right.
func (m PortMapping) wrong() (key string, value any, want string) {
	last := max(m.HostPort, m.HostPortEnd)
	_, known := protocolOf(m.Protocol)
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

// Firewall returns the mapping in the words of the firewall.
func (m PortMapping) Firewall() firewall.PortMap {
	return firewall.PortMap{
		Protocol: m.ProtocolOf(), HostIP: m.HostIP.Unmap(), Sources: m.Sources,
		HostPort: uint16(m.HostPort), HostPortEnd: uint16(m.HostPortEnd), ContainerPort: uint16(m.ContainerPort),
	}
}

// FirewallPorts returns the mappings in the words of the firewall; not nil.
func FirewallPorts(ports []PortMapping) []firewall.PortMap {
	all := []firewall.PortMap{}
	for _, m := range ports {
		all = append(all, m.Firewall())
	}
	return all
}

// SamePorts says whether these are the ports that were asked for, free ones chosen.
func SamePorts(have, want []PortMapping) bool {
	return slices.EqualFunc(have, want, func(h, w PortMapping) bool {
		if w.HostPort == 0 {
			w.HostPort = h.HostPort
		}
		return h.String() == w.String() && slices.Equal(h.Sources, w.Sources)
	})
}

// PublishesLocalhost says that clients on the host use 127.0.0.0/8 to reach one.
func PublishesLocalhost(ports []PortMapping) bool {
	return slices.ContainsFunc(ports, func(m PortMapping) bool {
		host := m.HostIP.Unmap()
		return !host.IsValid() || host.Is4() && (host.IsUnspecified() || host.IsLoopback())
	})
}

// ProtocolOf returns the protocol of a mapping by its name.
func (m PortMapping) ProtocolOf() firewall.Protocol {
	p, _ := protocolOf(m.Protocol)
	return p
}

// Protocols are those that can be published.
func Protocols() []firewall.Protocol {
	return []firewall.Protocol{firewall.TCP, firewall.UDP, firewall.SCTP}
}
