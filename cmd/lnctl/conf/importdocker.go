package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// builtIn are networks that every Docker has, and that no configuration makes.
var builtIn = map[string]skipped{
	"host": "its containers are in the host's own namespace, which a runtime does without CNI",
	"null": "its containers have no network",
}

// docker reads one network of "docker network inspect".
func (f *foreign) docker(network map[string]any) error {
	f.name, _ = network["Name"].(string)
	f.driver, _ = network["Driver"].(string)
	f.internal, _ = network["Internal"].(bool)
	if only, _ := network["ConfigOnly"].(bool); only {
		return skipped("it is a template (--config-only): the networks that are made from it have its values")
	}
	if why, is := builtIn[f.driver]; is {
		return why
	}
	containers := 0
	for _, l := range leaves("", "", "", 0, network) {
		switch {
		case strings.HasPrefix(l.kind, "Containers."):
			if strings.HasSuffix(l.kind, ".Name") {
				containers++
			}
		case strings.HasPrefix(l.kind, "Options.") && f.onParent():
			f.dockerParentOption(l)
		case strings.HasPrefix(l.kind, "Options."):
			f.dockerOption(l, strings.TrimPrefix(l.path, "Options."))
		case strings.HasPrefix(l.kind, "IPAM.Config[].AuxiliaryAddresses."):
			if f.aux == nil {
				f.aux = map[string]string{}
			}
			f.aux[l.key] = l.text()
			f.to(l, "ipam.auxAddresses", "")
		default:
			f.dockerKey(l)
		}
	}
	if containers > 0 {
		f.keys = append(f.keys, importedKey{From: "Containers", Value: fmt.Sprint(containers), Note: "they stay with Docker"})
	}
	if f.onParent() {
		return f.withParent()
	}
	if f.name != "bridge" { // which has no names with Docker, either
		f.conf.set("names", true)
		f.keys = append(f.keys, importedKey{From: "(names of containers)", To: "names", Note: "answered by ln-agent --local, or by the kernel: docs/names.md"})
	}
	f.hints = append(f.hints, fmt.Sprintf("while Docker has the network, its subnet is in use on this host, and ADD is refused: docker network rm %s", f.name))
	return nil
}

// withParent refuses a network that Docker keeps apart from every interface of the host: without
// "master" the reference plugins would take that of the default route.
func (f *foreign) withParent() error {
	if f.internal || f.parent == "" {
		return fmt.Errorf("network %q: driver %q without a parent, or internal, is apart from the host's interfaces, for which the reference plugin %s has no key: use bridge-ln with internal", f.name, f.driver, f.driver)
	}
	f.hints = append(f.hints, fmt.Sprintf("while Docker has the network, two containers may get one address: docker network rm %s", f.name))
	f.keys = append(f.keys, importedKey{From: "(names of containers)", Note: "the reference plugin " + f.driver + " has none"})
	return nil
}

func (f *foreign) dockerKey(l leaf) {
	switch l.kind {
	case "Name":
		f.to(l, "name", "")
	case "Driver":
		f.to(l, "type", "")
	case "Internal":
		f.to(l, "internal", "")
	case "EnableIPv4":
		f.noV4 = !l.yes()
		f.to(l, "ipam.ranges", "")
	case "EnableIPv6":
		f.to(l, "ipam.ranges", "")
	case "IPAM.Config[].Subnet":
		f.rangeOf(l.at).subnet = l.text()
		f.to(l, "ipam.ranges[][].subnet", "")
	case "IPAM.Config[].Gateway":
		f.rangeOf(l.at).gateway = strings.Split(l.text(), "/")[0]
		f.to(l, "ipam.ranges[][].gateway", "")
	case "IPAM.Config[].IPRange":
		f.within(l)
	case "IPAM.Driver":
		switch l.text() {
		case "default":
			f.to(l, "ipam.type", "")
		case "null":
			f.ipam = ipamNone
			f.none(l, "containers get no addresses: the key ipam is left out")
		default:
			f.none(l, "ipam-ln gives the addresses")
		}
	case "ConfigFrom.Network":
		if l.none() {
			f.none(l, "nothing is to be configured")
		} else {
			f.none(l, "the values of that template are in this network")
		}
	default:
		if l.none() || slices.Contains([]string{"Id", "Created", "Scope"}, l.kind) || strings.HasPrefix(l.kind, "Status") {
			f.none(l, "nothing is to be configured")
			return
		}
		f.none(l, "no counterpart")
	}
}

// within takes the part of a subnet that addresses are given from.
func (f *foreign) within(l leaf) {
	part, err := netip.ParsePrefix(l.text())
	if err != nil {
		f.none(l, "no prefix: all of the subnet is used")
		return
	}
	last := part.Masked().Addr().AsSlice()
	for bit := part.Bits(); bit < part.Addr().BitLen(); bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	end, _ := netip.AddrFromSlice(last)
	r := f.rangeOf(l.at)
	r.start, r.end = part.Masked().Addr().String(), end.String()
	f.to(l, "ipam.ranges[][].rangeStart, rangeEnd", "")
}

func (f *foreign) dockerOption(l leaf, option string) {
	switch strings.TrimPrefix(option, "com.docker.network.") {
	case "bridge.name":
		f.named(l, "Docker")
	case "bridge.enable_icc":
		f.conf.set("icc", l.yes())
		f.to(l, "icc", "")
	case "bridge.enable_ip_masquerade":
		if f.internal {
			f.none(l, withoutEffect)
			return
		}
		f.conf.set("ipMasq", l.yes())
		f.to(l, "ipMasq", "")
	case "bridge.gateway_mode_ipv4", "bridge.gateway_mode_ipv6":
		f.dockerMode(l, option[len(option)-4:])
	case "bridge.inhibit_ipv4":
		f.noGateway(l)
	case "bridge.trusted_host_interfaces":
		f.conf.set("trustedInterfaces", strings.Split(l.text(), ":"))
		f.to(l, "trustedInterfaces", "")
	case "driver.mtu":
		f.number(l, "mtu")
	case "host_ipv4", "host_ipv6":
		if f.internal {
			f.none(l, withoutEffect)
			return
		}
		key := "snatIPv" + option[len(option)-1:]
		f.conf.set(key, l.text())
		f.to(l, key, "")
	case "bridge.host_binding_ipv4":
		f.none(l, "hostIP of each port says it")
	case "bridge.default_bridge":
		f.none(l, "libnet has no network of that kind")
	case "container_iface_prefix":
		f.none(l, "the runtime names the interface")
	default:
		f.none(l, "no counterpart")
	}
}

const withoutEffect = "without effect in an internal network"

// dockerMode takes a gateway mode. In an internal network "isolated" alone says something.
func (f *foreign) dockerMode(l leaf, family string) {
	switch {
	case f.internal && l.text() == "isolated":
		f.noHost = true
		f.to(l, "gatewayMode", "for both families: an isolated bridge has no address at all")
	case f.internal:
		f.none(l, withoutEffect)
	default:
		if f.modes == nil {
			f.modes = map[string]string{}
		}
		f.modes[family] = l.text()
		f.to(l, "gatewayMode", "")
	}
}

// noGateway takes the option that leaves the bridge without an address of IPv4.
func (f *foreign) noGateway(l leaf) {
	switch {
	case !l.yes():
		f.none(l, "nothing is to be configured")
	case f.internal:
		f.noHost = true
		f.to(l, "gatewayMode", `"isolated": the bridge has no address at all`)
	default:
		f.none(l, "no counterpart: the bridge gets the gateway's address")
	}
}

// dockerParentOption takes an option of macvlan or ipvlan.
func (f *foreign) dockerParentOption(l leaf) {
	switch l.key {
	case "parent":
		f.parent = l.text()
		f.to(l, "master", "")
		if strings.Contains(f.parent, ".") {
			f.hints = append(f.hints, fmt.Sprintf("Docker makes %s, and removes it with the network; the reference plugin wants it there", f.parent))
		}
	case "macvlan_mode", "ipvlan_mode":
		f.conf.set("mode", l.text())
		f.to(l, "mode", "")
	case "ipvlan_flag":
		if l.text() == "bridge" {
			f.none(l, "nothing is to be configured: the reference plugin has that one")
		} else {
			f.none(l, "no counterpart: with the reference plugin containers reach each other")
		}
	case "com.docker.network.driver.mtu":
		f.number(l, "mtu")
	default:
		f.none(l, "no counterpart")
	}
}
