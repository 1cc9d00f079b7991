package libnet

import (
	"net"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// EndpointOption refines CreateEndpoint and Attach. The order of options does not
// matter.
type EndpointOption func(*endpointSpec)

type endpointSpec struct {
	ifName   string
	mac      net.HardwareAddr
	addrs    []netip.Addr
	ports    []PortMapping
	priority *int
}

// PortMapping publishes a port of the host, or a range of ports.
type PortMapping struct {
	Protocol      string         // "tcp", "udp" or "sctp"; empty: "tcp"
	HostIP        netip.Addr     // of the host; zero: any, of both families
	HostPort      int            // 1 to 65535; 0: a free one, which Endpoint.Ports tells
	HostPortEnd   int            // last port of a range from HostPort on; 0: no range
	ContainerPort int            // 1 to 65535, of a range the first one
	Sources       []netip.Prefix // clients that may use it; nil: all
}

// String is "tcp 0.0.0.0:8080 to 80".
func (m PortMapping) String() string { return model.PortMapping(m).String() }

// WithIfName names the interface in the container; default: the first of eth0, eth1
// and so on that is free there when the endpoint joins.
func WithIfName(name string) EndpointOption { return func(s *endpointSpec) { s.ifName = name } }

// WithMAC gives the interface this address; default: a random one.
func WithMAC(mac net.HardwareAddr) EndpointOption { return func(s *endpointSpec) { s.mac = mac } }

// WithAddresses asks for these addresses, one of a subnet at most.
func WithAddresses(addrs ...netip.Addr) EndpointOption {
	return func(s *endpointSpec) { s.addrs = append(s.addrs, addrs...) }
}

// WithPorts publishes ports of the host.
func WithPorts(ports ...PortMapping) EndpointOption {
	return func(s *endpointSpec) { s.ports = append(s.ports, ports...) }
}

// WithGatewayPriority decides between the networks of one container: the one with
// the highest priority has the default route. Default 0; equal ones go by name.
func WithGatewayPriority(priority int) EndpointOption {
	return func(s *endpointSpec) { s.priority = &priority }
}

func (s endpointSpec) forEngine() []engine.EndpointOption {
	opts := []engine.EndpointOption{engine.WithAddresses(s.addrs...)}
	for _, m := range s.ports {
		opts = append(opts, engine.WithPorts(model.PortMapping(m)))
	}
	if s.ifName != "" {
		opts = append(opts, engine.WithIfName(s.ifName))
	} else {
		opts = append(opts, engine.WithNextIfName())
	}
	if s.mac != nil {
		opts = append(opts, engine.WithMAC(s.mac))
	}
	if s.priority != nil {
		opts = append(opts, engine.WithGatewayPriority(*s.priority))
	}
	return opts
}

// forOther is what a plugin is told; a *ConfigError for what none can be told.
func (s endpointSpec) forOther(n *Network) (driver.Asked, error) {
	if s.priority != nil {
		return nil, model.BadConfig("gwPriority", *s.priority, "is no option of the driver "+n.Driver())
	}
	asked := driver.Asked{}
	if s.mac != nil {
		asked["mac"] = s.mac.String()
	}
	for _, a := range s.addrs {
		ips, _ := asked["ips"].([]string)
		asked["ips"] = append(ips, a.String())
	}
	if len(s.ports) > 0 {
		return nil, model.BadConfig("portMappings", s.ports[0], "the driver "+n.Driver()+" publishes no ports")
	}
	return asked, nil
}
