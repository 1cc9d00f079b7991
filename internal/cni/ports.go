package cni

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/engine"
)

// portMappings is the key of the ports in a result.
const portMappings = "portMappings"

// NamePorts has the result tell the ports that ADD got, if it was asked to
// choose any of them: a runtime learns the number nowhere else.
func (r *Result) NamePorts(asked, got []engine.PortMapping) {
	if slices.ContainsFunc(asked, func(p engine.PortMapping) bool { return p.HostPort == 0 }) {
		r.ports = got
	}
}

// withPorts adds ports to those of a result.
func withPorts(result []byte, ports []engine.PortMapping) []byte {
	keys := splitObject(result)
	all := []any{}
	for key, value := range keys {
		if !strings.EqualFold(key, portMappings) {
			continue
		}
		var items []json.RawMessage
		_ = json.Unmarshal(value, &items) // of another value than a list there are none
		for _, item := range items {
			all = append(all, item)
		}
	}
	for _, p := range ports {
		all = append(all, namedPort{p.HostPort, p.HostPortEnd, p.ContainerPort, p.Protocol, p.HostIP})
	}
	setKey(keys, portMappings, all)
	return mustMarshal(keys)
}

// namedPort is a port as a result names it.
type namedPort struct {
	HostPort      int        `json:"hostPort"`
	HostPortEnd   int        `json:"hostPortEnd,omitempty"`
	ContainerPort int        `json:"containerPort"`
	Protocol      string     `json:"protocol"`
	HostIP        netip.Addr `json:"hostIP,omitzero"`
}
