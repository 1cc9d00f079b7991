package publish

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/sentinel"
	"github.com/libnet-cni/libnet/internal/service"
)

// PortHeldError says that a port of the host is published for another container, or a service.
type PortHeldError struct {
	Owner string // "libnet:<network>/<container>/<interface>"
	Port  string // "tcp 0.0.0.0:8080"

	all []firewall.PortMap // of the ports that were asked for
}

// Error names the port and its owner.
func (e *PortHeldError) Error() string {
	if id, ok := model.ParsePublication(e.Owner); ok && isService(id) {
		name, _ := service.OfLease(id.ContainerID, id.IfName)
		return fmt.Sprintf("host port %s is published by service %q of network %q: choose another one, or remove it there (lnctl service)", e.Port, name, id.Network)
	}
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

// freePorts is what choosing needs of the kernel.
type freePorts interface {
	EphemeralPorts() (first, last uint16, reserved func(uint16) bool, err error)
	PortInUse(protocol string, ip netip.Addr, port uint16) bool
}

// maxChoices is how many ports are tried for one mapping.
const maxChoices = 100

// choosePorts gives each mapping without a port of the host one that no program
// has and no other mapping of ports has. Apply tells of ports that other containers have.
func choosePorts(k freePorts, ports []model.PortMapping) ([]model.PortMapping, error) {
	out := slices.Clone(ports)
	if !slices.ContainsFunc(out, func(m model.PortMapping) bool { return m.HostPort == 0 }) {
		return out, nil
	}
	taken := map[firewall.Protocol][]bool{} // by port, of any address
	for _, p := range model.Protocols() {
		taken[p] = make([]bool, 1<<16)
	}
	for _, m := range out {
		for port := m.HostPort; port > 0 && port <= max(m.HostPort, m.HostPortEnd); port++ {
			taken[m.ProtocolOf()][port] = true
		}
	}
	for i := range out {
		if out[i].HostPort != 0 {
			continue
		}
		port, err := choosePort(k, out[i], taken[out[i].ProtocolOf()])
		if err != nil {
			return nil, fmt.Errorf("portMappings[%d]: %w", i, err)
		}
		out[i].HostPort = port
		taken[out[i].ProtocolOf()][port] = true
	}
	return out, nil
}

func choosePort(k freePorts, m model.PortMapping, taken []bool) (int, error) {
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
var ErrNoFreePort error = &sentinel.Error{Text: "no free port in the ephemeral range"}
