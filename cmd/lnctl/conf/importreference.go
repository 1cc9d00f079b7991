package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// reference turns a configuration of the reference plugins into one of ours: most keys are
// the same, and plugins that we have none of stay in the list.
type reference struct {
	keys  []importedKey
	hints []string
}

func (r *reference) list(file *jsonr.Object, cniVersion string) (*object, error) {
	list := &object{}
	var plugins []*object
	if !file.Has("plugins") {
		p, err := r.plugin(file, "")
		if err != nil {
			return nil, err
		}
		version, name := json.RawMessage(`"`+cniVersion+`"`), file.At("name").Raw()
		if raw := file.At("cniVersion").Raw(); raw != nil {
			version = raw
		}
		list.set("cniVersion", version)
		list.set("name", json.RawMessage(name))
		p.keys = slices.DeleteFunc(p.keys, func(k string) bool { return k == "cniVersion" || k == "name" })
		plugins = append(plugins, p)
	} else {
		for v := range file.Values() {
			if v.Name() == "plugins" {
				continue
			}
			list.set(v.Name(), json.RawMessage(v.Raw()))
			r.keys = append(r.keys, importedKey{From: v.Name(), Value: shortened(compact(v.Raw())), To: v.Name()})
		}
		for i, item := range file.At("plugins").Items() {
			p, err := r.plugin(item.Object(), fmt.Sprintf("plugins[%d].", i))
			if err != nil {
				return nil, err
			}
			plugins = append(plugins, p)
		}
	}
	if err := file.Err(); err != nil {
		return nil, err
	}
	list.set("plugins", plugins)
	return list, nil
}

// counterparts are plugins of ours by the type of the reference plugin.
var counterparts = map[string]netconf.Plugin{"bridge": netconf.Bridge, "portmap": netconf.Portmap, "host-local": netconf.IPAM}

func (r *reference) plugin(p *jsonr.Object, at string) (*object, error) {
	var kind string
	p.String("type", &kind)
	if err := p.Err(); err != nil {
		return nil, err
	}
	ours, known := counterparts[kind]
	out := &object{}
	switch {
	case known && ours != netconf.IPAM:
	case slices.Contains([]string{"tuning", "firewall", "bandwidth", "sbr", "vrf", "loopback", "dhcp"}, kind) && at != "plugins[0].":
		r.keys = append(r.keys, importedKey{From: at + "type", Value: kind, To: at + "type", Note: "stays: the reference plugin runs behind ours, as before"})
		for v := range p.Values() {
			out.set(v.Name(), json.RawMessage(v.Raw()))
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%stype: %q has no counterpart here: there are bridge (bridge-ln), portmap (portmap-ln) and host-local (ipam-ln)", at, kind)
	}
	r.object(out, p, netconf.Table(ours), at, ours.String())
	out.set("type", ours.String())
	return out, nil
}

// object copies keys, and says of each whether the plugin of ours reads it.
func (r *reference) object(out *object, p *jsonr.Object, table []netconf.Key, at, plugin string) {
	for v := range p.Values() {
		name := v.Name()
		i := slices.IndexFunc(table, func(k netconf.Key) bool { return strings.EqualFold(k.Name, name) })
		key := importedKey{From: at + name, Value: shortened(compact(v.Raw())), To: at + name}
		switch {
		case name == "ipam" && v.IsObject():
			out.set(name, r.ipam(v.Object(), at+"ipam."))
			continue
		case name == "type":
			key.Value, key.Note = strings.Trim(key.Value, `"`), "becomes "+plugin
		case i < 0:
			key.To, key.Note = "", "not read by "+plugin+": it stays in the file"
		}
		r.keys = append(r.keys, key)
		out.set(name, json.RawMessage(v.Raw()))
	}
}

func (r *reference) ipam(p *jsonr.Object, at string) *object {
	var kind string
	p.String("type", &kind)
	out := &object{}
	if kind == "host-local" {
		r.object(out, p, ipamKeys(), at, netconf.IPAM.String())
		out.set("type", netconf.IPAM.String())
		return out
	}
	for v := range p.Values() {
		out.set(v.Name(), json.RawMessage(v.Raw()))
	}
	if kind != "" {
		r.keys = append(r.keys, importedKey{From: at + "type", Value: kind, To: at + "type", Note: "stays: bridge-ln calls it"})
	}
	return out
}

// ipamKeys are those that ipam-ln reads inside of ipam.
func ipamKeys() []netconf.Key {
	for _, k := range netconf.Table(netconf.IPAM) {
		if k.Name == "ipam" {
			return k.Inside
		}
	}
	return nil
}

func compact(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}
