package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// foreign is a network of Docker or Podman on its way to a configuration.
type foreign struct {
	name, driver string
	conf         object // keys of the plugin, without those of addresses
	ranges       []*foreignRange
	routes       []*object
	odd          map[int]string    // routes that libnet has not, and why
	modes        map[string]string // by family, as "ipv4"
	noV4         bool
	noDefault    bool // route
	internal     bool
	noHost       bool // the bridge has no address
	aux          map[string]string
	ipam         foreignIPAM
	unmanaged    bool   // the bridge is the host's own
	parent       string // of macvlan and ipvlan
	keys         []importedKey
	hints        []string
	// bridgeThere says that the host has an interface of that name.
	bridgeThere func(string) bool
}

// foreignIPAM is what gives the addresses.
type foreignIPAM string

const (
	ipamOwn  foreignIPAM = "" // ipam-ln does
	ipamDHCP foreignIPAM = "dhcp"
	ipamNone foreignIPAM = "none"
)

type foreignRange struct{ subnet, gateway, start, end string }

// skipped is why a network is none that a configuration could make.
type skipped string

func (s skipped) Error() string { return string(s) }

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

// onParent says that containers stand in the network of an interface of the host.
func (f *foreign) onParent() bool { return f.driver == "macvlan" || f.driver == "ipvlan" }

// number sets a key whose value the program writes as text.
func (f *foreign) number(l leaf, key string) {
	f.conf.set(key, json.Number(l.text()))
	f.to(l, key, "")
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

// file puts the parts together. The second result is what lint has to look at: of a plugin of
// others the addresses alone.
func (f *foreign) file(cniVersion string) (list, checked *object, err error) {
	if f.name == "" {
		return nil, nil, errors.New("the network has no name")
	}
	fail := func(err error) (*object, *object, error) {
		return nil, nil, fmt.Errorf("network %q: %w", f.name, err)
	}
	if f.driver != "bridge" && f.driver != "" && !f.onParent() {
		return fail(fmt.Errorf("driver %q has no counterpart in bridge-ln%s", f.driver, map[string]string{
			"overlay": ": overlay-ln spans hosts, and needs their addresses: see docs/from-docker.md",
		}[f.driver]))
	}
	ipam, err := f.addresses()
	if err != nil {
		return fail(err)
	}
	p, like := &object{}, &object{}
	like.set("type", netconf.Bridge.String())
	if f.onParent() {
		f.ofParent(p)
	} else {
		p.set("type", netconf.Bridge.String())
		for _, key := range f.conf.keys {
			p.set(key, f.conf.values[key])
		}
		f.closed(p)
		like = p
	}
	if ipam != nil {
		p.set("ipam", ipam)
		like.set("ipam", ipam)
	}
	listOf := func(plugin *object) *object {
		o := &object{}
		o.set("cniVersion", cniVersion)
		o.set("name", f.name)
		o.set("plugins", []*object{plugin})
		return o
	}
	return listOf(p), listOf(like), nil
}

// ofParent sets the keys of a reference plugin, macvlan or ipvlan.
func (f *foreign) ofParent(p *object) {
	p.set("type", f.driver)
	if f.parent != "" {
		p.set("master", f.parent)
	}
	for _, key := range []string{"mode", "mtu"} {
		if v, is := f.conf.values[key]; is {
			p.set(key, v)
		}
	}
	f.hints = append(f.hints, fmt.Sprintf("%s is a plugin of the reference, which has to be installed; lnctl sees none of its containers, and publishes none of their ports", f.driver))
}

// addresses is the key "ipam"; nil: containers get none.
func (f *foreign) addresses() (*object, error) {
	ipam := &object{}
	switch f.ipam {
	case ipamNone:
		return nil, nil
	case ipamDHCP:
		ipam.set("type", string(ipamDHCP))
		f.hints = append(f.hints, "addresses come by DHCP: the daemon of the reference plugin dhcp has to run")
		return ipam, nil
	}
	ipam.set("type", netconf.IPAM.String())
	ranges, err := f.rangeSets()
	if err != nil {
		return nil, err
	}
	ipam.set("ranges", ranges)
	if len(f.aux) > 0 {
		ipam.set("auxAddresses", f.aux)
	}
	if routes := append(f.defaultRoutes(), f.otherRoutes()...); len(routes) > 0 {
		ipam.set("routes", routes)
	}
	return ipam, nil
}

// rangeSets has each subnet in a set of its own.
func (f *foreign) rangeSets() ([][]*object, error) {
	ranges := [][]*object{}
	for _, r := range f.ranges {
		subnet, err := netip.ParsePrefix(r.subnet)
		if err != nil {
			return nil, fmt.Errorf("subnet %q: %w", r.subnet, err)
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
	switch {
	case len(ranges) > 0:
	case f.onParent() || f.unmanaged:
		return nil, errors.New("no subnet is in it, and one of the host's own network cannot be chosen")
	default:
		o := &object{}
		o.set("subnet", "auto")
		ranges = append(ranges, []*object{o})
	}
	return ranges, nil
}

// defaultRoutes are those of containers whose gateway is none of ours: a bridge of ours sets
// them itself.
func (f *foreign) defaultRoutes() (all []*object) {
	if f.noDefault || f.internal || !f.onParent() && !f.unmanaged {
		return nil
	}
	for _, r := range f.ranges {
		subnet, err := netip.ParsePrefix(r.subnet)
		if err != nil || f.noV4 && subnet.Addr().Is4() {
			continue
		}
		dst := "0.0.0.0/0"
		if subnet.Addr().Is6() {
			dst = "::/0"
		}
		o := &object{}
		o.set("dst", dst)
		if !slices.ContainsFunc(all, func(r *object) bool { return r.values["dst"] == dst }) {
			all = append(all, o)
		}
	}
	return all
}

// otherRoutes are those that the network names.
func (f *foreign) otherRoutes() (all []*object) {
	for i, r := range f.routes {
		if f.odd[i] == "" {
			all = append(all, r)
		}
	}
	return all
}

// closed sets what outside may reach, as both programs have it: published ports only. A bridge
// of the host's own, and one whose containers get no addresses, is left as it is.
func (f *foreign) closed(p *object) {
	switch {
	case f.unmanaged || f.ipam != ipamOwn:
		return
	case f.internal && f.noHost:
		p.set("gatewayMode", "isolated")
	case f.internal:
		p.set("isGateway", true)
		p.set("internal", true)
	case f.noDefault:
		p.set("isGateway", true)
		p.set("ipMasq", true)
	default:
		p.set("gatewayMode", f.mode())
	}
	if !f.internal {
		capabilities := &object{}
		capabilities.set("portMappings", true)
		p.set("capabilities", capabilities)
	}
}

// mode is the value of gatewayMode: one for both families, or one for each.
func (f *foreign) mode() any {
	of := func(family string) string {
		if m := f.modes[family]; m != "" {
			return m
		}
		return "nat"
	}
	if of("ipv4") == of("ipv6") {
		return of("ipv4")
	}
	modes := &object{}
	modes.set("ipv4", of("ipv4"))
	modes.set("ipv6", of("ipv6"))
	return modes
}
