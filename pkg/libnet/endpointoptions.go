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
type PortMapping = engine.PortMapping

// Address is an address of an endpoint and the gateway of its subnet.
type Address = model.Address

// Route is a route of an endpoint.
type Route = model.Route

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
	opts := []engine.EndpointOption{engine.WithAddresses(s.addrs...), engine.WithPorts(s.ports...)}
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
