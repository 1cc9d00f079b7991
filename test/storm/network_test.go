package storm

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// object is a JSON object.
type object map[string]any

// network is one that containers are attached to, by a chain of plugins.
type network struct {
	name    string
	plugins []plugin
	ports   bool // are published for containers of this network
	room    int  // how many addresses it has; 0: enough
	// orphans are attachments whose container is gone since then, and that no
	// DEL comes for: only GC can.
	orphans map[id]int
	// collecting is how many calls of GC with a list run. A container that is not on
	// the list must not come before they end (spec 1.1.0, section 2, Lifecycle).
	collecting int
}

type plugin struct {
	binary string
	ports  bool // the one of the chain that publishes them
	conf   object
}

// id names an attachment within its network.
type id struct{ cid, ifName string }

// networks returns those of the storm: the one whose containers have eth1 in it
// comes last. It has fewer addresses than containers.
func networks(containers int) []*network {
	room := containers * 3 / 4
	nat := plugin{"bridge-ln", true, object{"bridge": "br-nat", "gatewayMode": "nat", "fastPath": "auto", "ipam": ipam("10.1.0.0/22", "fd01::/64")}}
	behind := plugin{"bridge-ln", false, object{"bridge": "br-chain", "isDefaultGateway": true, "ipMasq": true, "ipam": ipam("10.2.0.0/22")}}
	auto := plugin{"bridge-ln", false, object{"bridge": "br-auto", "isDefaultGateway": true, "ipMasq": true, "icc": false, "macspoofchk": true, "ipam": ipam("auto/23")}}
	bare := plugin{"bridge-ln", false, object{"bridge": "br-bare", "ipam": object{"type": "ipam-ln", "ranges": []any{[]any{
		object{"subnet": "10.4.0.0/22", "rangeStart": "10.4.1.0", "rangeEnd": fmt.Sprintf("10.4.%d.%d", 1+(room-1)/256, (room-1)%256)},
	}}}}}
	sealed := plugin{"overlay-ln", true, object{"bridge": "br-sealed", "encryption": "wireguard", "privateKeyFile": keyFile, "nodes": []any{
		object{"address": hostIPs[0], "publicKey": publicKey, "subnet": []string{"10.5.0.0/22", "fd05::/64"}},
		object{"address": "192.0.2.2", "publicKey": "YMN97z41QIzNTrftaqmpqgRSgUM0i3llBIZeu2x2BW4=", "subnet": []string{"10.5.4.0/22", "fd05:0:0:1::/64"}},
	}}}
	return []*network{
		{name: "nat", ports: true, plugins: []plugin{nat}},
		{name: "sealed", ports: true, plugins: []plugin{sealed}},
		{name: "chain", ports: true, plugins: []plugin{behind, {"portmap-ln", true, object{}}}},
		{name: "auto", plugins: []plugin{auto}},
		{name: "bare", plugins: []plugin{bare}, room: room},
	}
}

func ipam(subnets ...string) object {
	var sets []any
	for _, s := range subnets {
		sets = append(sets, []any{object{"subnet": s}})
	}
	return object{"type": "ipam-ln", "ranges": sets}
}

// stdin is the configuration of a plugin for one call.
func (n *network) stdin(p plugin, more object) string {
	conf := object{"cniVersion": "1.1.0", "name": n.name, "type": p.binary}
	maps.Copy(conf, p.conf)
	maps.Copy(conf, more)
	data, err := json.Marshal(conf)
	if err != nil {
		panic(err) // of what is in this file
	}
	return string(data)
}

// port is a published port of the host, or a range.
type port struct {
	HostPort      int    `json:"hostPort"`
	HostPortEnd   int    `json:"hostPortEnd,omitempty"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// The ports that containers ask for: few, so that they meet.
const (
	firstPort = 20000
	morePorts = 40
)

// somePorts are those that one ADD asks for.
func somePorts(r *rand.Rand) []port {
	asked := []port{{HostPort: 0, ContainerPort: 53, Protocol: "udp"}}
	p := port{HostPort: firstPort + r.IntN(morePorts), ContainerPort: 80, Protocol: "tcp"}
	switch r.IntN(6) {
	case 0:
		return asked
	case 1:
		p.HostIP = hostIPs[r.IntN(len(hostIPs))]
	case 2:
		p.HostPortEnd = p.HostPort + 2
	}
	return append(asked, p)
}

// meets says that two mappings are of the same port of the host.
func (p port) meets(o port) bool {
	return p.Protocol == o.Protocol && (p.HostIP == "" || o.HostIP == "" || p.HostIP == o.HostIP) &&
		p.HostPort <= max(o.HostPort, o.HostPortEnd) && o.HostPort <= max(p.HostPort, p.HostPortEnd)
}

func meet(a, b []port) bool {
	return slices.ContainsFunc(a, func(p port) bool { return slices.ContainsFunc(b, p.meets) })
}
