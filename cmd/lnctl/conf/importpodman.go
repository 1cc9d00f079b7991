package conf

import (
	"fmt"
	"slices"
	"strings"
)

// podman reads one network of "podman network inspect".
func (f *foreign) podman(network map[string]any) {
	f.driver, _ = network["driver"].(string)
	f.name, _ = network["name"].(string)
	f.internal, _ = network["internal"].(bool)
	if options, is := network["options"].(map[string]any); is {
		f.unmanaged = options["mode"] == "unmanaged"
	}
	containers := map[string]bool{}
	for _, l := range leaves("", "", "", 0, network) {
		switch {
		case strings.HasPrefix(l.path, "containers."):
			id, _, _ := strings.Cut(strings.TrimPrefix(l.path, "containers."), ".")
			containers[id] = true
		case strings.HasPrefix(l.kind, "options."):
			f.podmanOption(l)
		case strings.HasPrefix(l.kind, "routes[]."):
			f.podmanRoute(l)
		default:
			f.podmanKey(l)
		}
	}
	if len(containers) > 0 {
		f.keys = append(f.keys, importedKey{From: "containers", Value: fmt.Sprint(len(containers)), Note: "they stay with Podman"})
	}
	if !f.onParent() && !f.unmanaged {
		f.hints = append(f.hints, fmt.Sprintf("while Podman uses the network, its subnet is in use on this host, and ADD is refused: podman network rm %s", f.name))
	}
}

func (f *foreign) podmanKey(l leaf) {
	switch l.kind {
	case "name":
		f.to(l, "name", "")
	case "driver":
		f.to(l, "type", "")
	case "network_interface":
		f.podmanInterface(l)
	case "internal":
		f.to(l, "internal", "")
	case "ipv6_enabled":
		f.to(l, "ipam.ranges", "")
	case "dns_enabled":
		f.podmanNames(l)
	case "subnets[].subnet":
		f.rangeOf(l.at).subnet = l.text()
		f.to(l, "ipam.ranges[][].subnet", "")
	case "subnets[].gateway":
		f.rangeOf(l.at).gateway = l.text()
		f.to(l, "ipam.ranges[][].gateway", "")
	case "subnets[].lease_range.start_ip":
		f.rangeOf(l.at).start = l.text()
		f.to(l, "ipam.ranges[][].rangeStart", "")
	case "subnets[].lease_range.end_ip":
		f.rangeOf(l.at).end = l.text()
		f.to(l, "ipam.ranges[][].rangeEnd", "")
	case "ipam_options.driver":
		f.podmanIPAM(l)
	default:
		if l.none() || slices.Contains([]string{"id", "created"}, l.kind) {
			f.none(l, "nothing is to be configured")
			return
		}
		f.none(l, "no counterpart")
	}
}

// podmanInterface is the bridge, or the parent of a macvlan.
func (f *foreign) podmanInterface(l leaf) {
	switch {
	case f.onParent():
		f.parent = l.text()
		f.to(l, "master", "")
	case f.unmanaged:
		f.conf.set("bridge", l.text())
		f.to(l, "bridge", "it is the host's own")
	default:
		f.named(l, "Podman")
	}
}

func (f *foreign) podmanNames(l leaf) {
	switch {
	case !l.yes():
		f.none(l, "nothing is to be configured")
	case f.onParent():
		f.none(l, "the reference plugin "+f.driver+" has no names")
	default:
		f.conf.set("names", true)
		f.hints = append(f.hints, "names are answered by ln-agent --local, or by the kernel: see docs/names.md")
		f.to(l, "names", "")
	}
}

func (f *foreign) podmanIPAM(l leaf) {
	switch l.text() {
	case "host-local":
		f.to(l, "ipam.type", "")
	case "dhcp":
		f.ipam = ipamDHCP
		f.to(l, "ipam.type", "")
	case "none":
		f.ipam = ipamNone
		f.none(l, "containers get no addresses: the key ipam is left out")
	default:
		f.none(l, "ipam-ln gives the addresses")
	}
}

// podmanRoute takes a route. One that is no way to a gateway, as a blackhole, is none for libnet.
func (f *foreign) podmanRoute(l leaf) {
	if l.key == "route_type" {
		if l.text() == "unicast" || l.none() {
			f.none(l, "nothing is to be configured")
			return
		}
		if f.odd == nil {
			f.odd = map[int]string{}
		}
		f.odd[l.at] = l.text()
		f.none(l, "libnet has no routes of that type: the route is left out")
		return
	}
	for len(f.routes) <= l.at {
		f.routes = append(f.routes, &object{})
	}
	key := map[string]string{"destination": "dst", "gateway": "gw", "metric": "priority"}[l.key]
	if key == "" {
		f.none(l, "no counterpart")
		return
	}
	f.routes[l.at].set(key, l.raw)
	f.to(l, "ipam.routes[]."+key, "")
}

func (f *foreign) podmanOption(l leaf) {
	switch l.key {
	case "mtu", "com.docker.network.driver.mtu":
		f.number(l, "mtu")
	case "vlan":
		f.number(l, "vlan")
	case "isolate":
		if l.text() == "true" || l.text() == "strict" || l.text() == "1" {
			f.conf.set("ingressPolicy", "same-bridge")
		}
		f.to(l, "ingressPolicy", "")
	case "no_default_route":
		f.noDefault = l.yes() || l.text() == "1"
		f.to(l, "isGateway", "without isDefaultGateway")
	case "metric":
		f.none(l, "a metric of "+l.text()+" is no priority: give gwPriority, the highest of which has the default route")
	case "outbound_addr4", "outbound_addr6":
		if f.internal {
			f.none(l, withoutEffect)
			return
		}
		key := "snatIPv" + l.key[len(l.key)-1:]
		f.conf.set(key, l.text())
		f.to(l, key, "")
	case "mode":
		f.podmanMode(l)
	case "host_interface_name":
		f.none(l, "libnet derives the name of the host's end, as two containers cannot share one")
	case "vrf":
		f.none(l, "no counterpart: put the bridge into the VRF once it is there (ip link set BRIDGE master "+l.text()+")")
	default:
		f.none(l, "no counterpart")
	}
}

// podmanMode is that of a bridge, or of macvlan and ipvlan.
func (f *foreign) podmanMode(l leaf) {
	switch {
	case f.onParent():
		f.conf.set("mode", l.text())
		f.to(l, "mode", "")
	case f.unmanaged:
		f.to(l, "bridge", "without isGateway, ipMasq and gatewayMode: the bridge is the host's own, and no port is published")
	default:
		f.none(l, "nothing is to be configured")
	}
}
