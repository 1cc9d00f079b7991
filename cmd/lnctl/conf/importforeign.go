package conf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// foreign is a network of Docker or Podman on its way to a configuration.
type foreign struct {
	name, driver string
	conf         object
	ranges       []*foreignRange
	routes       []*object
	modes        map[string]string // by family, as "ipv4"
	noV4         bool
	noDefault    bool // route
	internal     bool
	aux          map[string]string
	keys         []importedKey
	hints        []string
	// bridgeThere says that the host has an interface of that name.
	bridgeThere func(string) bool
}

type foreignRange struct{ subnet, gateway, start, end string }

// to notes that a key has a counterpart; note may be empty.
func (f *foreign) to(l leaf, key, note string) { f.say(l, key, note) }

// none notes that it has none, and why.
func (f *foreign) none(l leaf, why string) { f.say(l, "", why) }

func (f *foreign) say(l leaf, key, note string) {
	f.keys = append(f.keys, importedKey{From: l.path, Value: shortened(l.text()), To: key, Note: note})
}

// shortened is a value that has room in a table.
func shortened(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func (f *foreign) rangeOf(i int) *foreignRange {
	for len(f.ranges) <= i {
		f.ranges = append(f.ranges, &foreignRange{})
	}
	return f.ranges[i]
}

// named takes the name of a bridge, unless the host has one: it is that program's.
func (f *foreign) named(l leaf, program string) {
	if f.bridgeThere(l.text()) {
		f.none(l, "the host has that interface, which is "+program+"'s: another name is derived")
		return
	}
	f.conf.set("bridge", l.text())
	f.to(l, "bridge", "")
}

// file puts the parts together.
func (f *foreign) file(cniVersion string) (*object, error) {
	if f.name == "" {
		return nil, fmt.Errorf("the network has no name")
	}
	if f.driver != "bridge" && f.driver != "" {
		return nil, fmt.Errorf("network %q: driver %q has no counterpart in bridge-ln%s", f.name, f.driver, map[string]string{
			"overlay": ": overlay-ln spans hosts, and needs their addresses: see docs/from-docker.md",
			"macvlan": ": use the reference plugin macvlan", "ipvlan": ": use the reference plugin ipvlan",
		}[f.driver])
	}
	p := &object{}
	p.set("type", netconf.Bridge.String())
	for _, key := range f.conf.keys {
		p.set(key, f.conf.values[key])
	}
	f.closed(p)
	ipam := &object{}
	ipam.set("type", netconf.IPAM.String())
	ranges := [][]*object{}
	for _, r := range f.ranges {
		subnet, err := netip.ParsePrefix(r.subnet)
		if err != nil {
			return nil, fmt.Errorf("network %q: subnet %q: %w", f.name, r.subnet, err)
		}
		if f.noV4 && subnet.Addr().Is4() {
			continue
		}
		o := &object{}
		for _, field := range []struct{ key, value string }{{"subnet", subnet.Masked().String()}, {"rangeStart", r.start}, {"rangeEnd", r.end}, {"gateway", r.gateway}} {
			if field.value != "" {
				o.set(field.key, field.value)
			}
		}
		ranges = append(ranges, []*object{o})
	}
	if len(ranges) == 0 {
		o := &object{}
		o.set("subnet", "auto")
		ranges = append(ranges, []*object{o})
	}
	ipam.set("ranges", ranges)
	if len(f.aux) > 0 {
		ipam.set("auxAddresses", f.aux)
	}
	if len(f.routes) > 0 {
		ipam.set("routes", f.routes)
	}
	p.set("ipam", ipam)
	list := &object{}
	list.set("cniVersion", cniVersion)
	list.set("name", f.name)
	list.set("plugins", []*object{p})
	return list, nil
}

// closed sets what outside may reach, as both programs have it: published ports only.
func (f *foreign) closed(p *object) {
	switch {
	case f.internal:
		p.set("isGateway", true)
		p.set("internal", true)
	case f.noDefault:
		p.set("isGateway", true)
		p.set("ipMasq", true)
	case len(f.modes) == 0 || f.modes["ipv4"] == f.modes["ipv6"] && f.modes["ipv4"] != "":
		mode := "nat"
		if m := f.modes["ipv4"]; m != "" {
			mode = m
		}
		p.set("gatewayMode", mode)
	default:
		modes := &object{}
		for _, family := range []string{"ipv4", "ipv6"} {
			mode := f.modes[family]
			if mode == "" {
				mode = "nat"
			}
			modes.set(family, mode)
		}
		p.set("gatewayMode", modes)
	}
	if !f.internal {
		capabilities := &object{}
		capabilities.set("portMappings", true)
		p.set("capabilities", capabilities)
	}
}

// docker reads one network of "docker network inspect".
func (f *foreign) docker(network map[string]any) {
	containers := 0
	for _, l := range leaves("", "", "", 0, network) {
		switch {
		case strings.HasPrefix(l.kind, "Containers"):
			if strings.HasSuffix(l.kind, ".Name") {
				containers++
			}
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
	if f.name != "bridge" { // which has no names with Docker, either
		f.conf.set("names", true)
		f.keys = append(f.keys, importedKey{From: "(names of containers)", To: "names", Note: "answered by ln-agent --local, or by the kernel: docs/names.md"})
	}
	f.hints = append(f.hints, fmt.Sprintf("while Docker has the network, its subnet is in use on this host, and ADD is refused: docker network rm %s", f.name))
}

func (f *foreign) dockerKey(l leaf) {
	switch l.kind {
	case "Name":
		f.name = l.text()
		f.to(l, "name", "")
	case "Driver":
		f.driver = l.text()
		f.to(l, "type", "")
	case "Internal":
		f.internal = l.yes()
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
		if l.text() != "default" {
			f.none(l, "ipam-ln gives the addresses")
		} else {
			f.to(l, "ipam.type", "")
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
		f.conf.set("ipMasq", l.yes())
		f.to(l, "ipMasq", "")
	case "bridge.gateway_mode_ipv4", "bridge.gateway_mode_ipv6":
		if f.modes == nil {
			f.modes = map[string]string{}
		}
		f.modes[option[len(option)-4:]] = l.text()
		f.to(l, "gatewayMode", "")
	case "bridge.trusted_host_interfaces":
		f.conf.set("trustedInterfaces", strings.Split(l.text(), ":"))
		f.to(l, "trustedInterfaces", "")
	case "driver.mtu":
		f.conf.set("mtu", json.Number(l.text()))
		f.to(l, "mtu", "")
	case "host_ipv4":
		f.conf.set("snatIPv4", l.text())
		f.to(l, "snatIPv4", "")
	case "host_ipv6":
		f.conf.set("snatIPv6", l.text())
		f.to(l, "snatIPv6", "")
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

// podman reads one network of "podman network inspect".
func (f *foreign) podman(network map[string]any) {
	metric := ""
	for _, l := range leaves("", "", "", 0, network) {
		switch l.kind {
		case "name":
			f.name = l.text()
			f.to(l, "name", "")
		case "driver":
			f.driver = l.text()
			f.to(l, "type", "")
		case "network_interface":
			f.named(l, "Podman")
		case "internal":
			f.internal = l.yes()
			f.to(l, "internal", "")
		case "ipv6_enabled":
			f.to(l, "ipam.ranges", "")
		case "dns_enabled":
			if l.yes() {
				f.conf.set("names", true)
				f.hints = append(f.hints, "names are answered by ln-agent --local, or by the kernel: see docs/names.md")
			}
			f.to(l, "names", "")
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
		case "routes[].destination", "routes[].gateway", "routes[].metric":
			f.podmanRoute(l)
		case "options.metric":
			metric = l.text()
			f.none(l, "a metric of "+metric+" is no priority: give gwPriority, the highest of which has the default route")
		default:
			f.podmanKey(l)
		}
	}
	f.hints = append(f.hints, fmt.Sprintf("while Podman uses the network, its subnet is in use on this host, and ADD is refused: podman network rm %s", f.name))
}

func (f *foreign) podmanRoute(l leaf) {
	for len(f.routes) <= l.at {
		f.routes = append(f.routes, &object{})
	}
	key := map[string]string{"destination": "dst", "gateway": "gw", "metric": "priority"}[l.key]
	f.routes[l.at].set(key, l.raw)
	f.to(l, "ipam.routes[]."+key, "")
}

func (f *foreign) podmanKey(l leaf) {
	switch l.kind {
	case "options.mtu":
		f.conf.set("mtu", json.Number(l.text()))
		f.to(l, "mtu", "")
	case "options.vlan":
		f.conf.set("vlan", json.Number(l.text()))
		f.to(l, "vlan", "")
	case "options.isolate":
		if l.text() == "true" || l.text() == "strict" || l.text() == "1" {
			f.conf.set("ingressPolicy", "same-bridge")
		}
		f.to(l, "ingressPolicy", "")
	case "options.no_default_route":
		f.noDefault = l.yes() || l.text() == "1"
		f.to(l, "isGateway", "without isDefaultGateway")
	case "ipam_options.driver":
		if l.text() == "host-local" {
			f.to(l, "ipam.type", "")
		} else {
			f.none(l, "ipam-ln gives the addresses")
		}
	default:
		if l.none() || slices.Contains([]string{"id", "created"}, l.kind) {
			f.none(l, "nothing is to be configured")
			return
		}
		f.none(l, "no counterpart")
	}
}
