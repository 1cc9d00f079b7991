package plan

import (
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// SavedPorts are ports as a record keeps them.
func SavedPorts(ports []model.PortMapping) []state.Port {
	var all []state.Port
	for _, m := range ports {
		all = append(all, state.Port(m))
	}
	return all
}

// PortsOf returns the ports of a record.
func PortsOf(rec state.Endpoint) []model.PortMapping {
	var all []model.PortMapping
	for _, p := range rec.Ports {
		all = append(all, model.PortMapping(p))
	}
	return all
}
