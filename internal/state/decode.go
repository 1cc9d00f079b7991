package state

import (
	"net/netip"

	"github.com/libnet-cni/libnet/internal/jsonr"
)

// decode reads what encode wrote. encoding/json would learn the types by reflection first, in
// every process anew.
func (r *Endpoint) decode(data []byte) error {
	o, err := jsonr.Parse(data)
	if err != nil {
		return err
	}
	o.String("Network", &r.Network)
	o.String("ContainerID", &r.ContainerID)
	o.String("IfName", &r.IfName)
	o.String("Phase", (*string)(&r.Phase))
	o.String("Boot", &r.Boot)
	o.String("Netns", &r.Netns)
	r.NetnsID.decode(o.At("NetnsID").Object())
	o.String("MountNS", &r.MountNS)
	o.String("IPAM", &r.IPAM)
	o.String("DataDir", &r.DataDir)
	o.String("Bridge", &r.Bridge)
	o.String("HostName", &r.HostName)
	o.String("MAC", &r.MAC)
	o.At("Rules").Bool(&r.Rules)
	o.String("Backend", &r.Backend)
	o.String("Guard", &r.Guard)
	o.String("Tunnel", &r.Tunnel)
	o.String("Spare", &r.Spare)
	o.String("Runtime", &r.Runtime)
	o.String("Workload", &r.Workload)
	o.String("PodUID", &r.PodUID)
	o.At("GatewayPriority").Int(&r.GatewayPriority)
	o.String("LinkName", &r.LinkName)
	o.At("NextName").Bool(&r.NextName)
	if v := o.At("Names"); !v.Missing() {
		r.Names = decodeNames(v.Object())
	}
	o.At("Fast").Int(&r.Fast)
	if v := o.At("OwnRules"); !v.Missing() {
		r.OwnRules = decodeOwnRules(v.Object())
	}
	r.Addresses = decodeList(o.At("Addresses"), decodeAddress)
	r.Routes = decodeList(o.At("Routes"), decodeRoute)
	r.DNS = decodeDNS(o.At("DNS").Object())
	r.Links = decodeList(o.At("Links"), decodeLink)
	r.Ports = decodeList(o.At("Ports"), decodePort)
	r.Config = o.At("Config").Raw()
	return o.Err()
}

func decodeList[T any](v jsonr.Value, one func(*jsonr.Object) T) []T {
	return decodeValues(v, func(item jsonr.Value) T { return one(item.Object()) })
}

// decodeValues returns nil for a list that is missing, and not for an empty one.
func decodeValues[T any](v jsonr.Value, one func(jsonr.Value) T) []T {
	items := v.Items()
	if items == nil {
		return nil
	}
	all := make([]T, len(items))
	for i, item := range items {
		all[i] = one(item)
	}
	return all
}

func (n *NetnsID) decode(o *jsonr.Object) {
	o.At("Dev").Uint(&n.Dev)
	o.At("Ino").Uint(&n.Ino)
	o.At("Cookie").Uint(&n.Cookie)
}

func decodeNames(o *jsonr.Object) *Names {
	n := &Names{Own: o.At("Own").Strings()}
	o.String("Domain", &n.Domain)
	o.String("Responder", &n.Responder)
	o.At("Link").Int(&n.Link)
	return n
}

func decodeOwnRules(o *jsonr.Object) *OwnRules {
	r := new(OwnRules)
	o.At("MasqueradeIPv4").Bool(&r.MasqueradeIPv4)
	o.At("MasqueradeIPv6").Bool(&r.MasqueradeIPv6)
	o.At("SpoofCheck").Bool(&r.SpoofCheck)
	o.At("NoHairpin").Bool(&r.NoHairpin)
	o.At("MasqueradeAll").Bool(&r.MasqueradeAll)
	r.Source = decodeValues(o.At("Source"), addrOf)
	return r
}

func decodeAddress(o *jsonr.Object) Address {
	return Address{Prefix: prefixOf(o.At("Prefix")), Gateway: addrOf(o.At("Gateway"))}
}

func decodeRoute(o *jsonr.Object) Route {
	r := Route{Dst: prefixOf(o.At("Dst")), Gateway: addrOf(o.At("Gateway")), Table: o.At("Table").OptionalInt(), Scope: o.At("Scope").OptionalInt()}
	o.At("MTU").Int(&r.MTU)
	o.At("AdvMSS").Int(&r.AdvMSS)
	o.At("Priority").Int(&r.Priority)
	return r
}

func decodeDNS(o *jsonr.Object) DNS {
	d := DNS{Nameservers: o.At("Nameservers").Strings(), Search: o.At("Search").Strings(), Options: o.At("Options").Strings()}
	o.String("Domain", &d.Domain)
	return d
}

func decodeLink(o *jsonr.Object) Link {
	var l Link
	o.String("Name", &l.Name)
	o.String("MAC", &l.MAC)
	o.At("MTU").Int(&l.MTU)
	o.String("Netns", &l.Netns)
	return l
}

func decodePort(o *jsonr.Object) Port {
	p := Port{HostIP: addrOf(o.At("HostIP"))}
	o.String("Protocol", &p.Protocol)
	o.At("HostPort").Int(&p.HostPort)
	o.At("HostPortEnd").Int(&p.HostPortEnd)
	o.At("ContainerPort").Int(&p.ContainerPort)
	p.Sources = decodeValues(o.At("Sources"), prefixOf)
	return p
}

// addrOf returns the address as it is written, the zero address for a missing and an empty one.
func addrOf(v jsonr.Value) (a netip.Addr) {
	var s string
	v.String(&s)
	if err := a.UnmarshalText([]byte(s)); err != nil {
		v.Refuse("an address")
	}
	return a
}

// prefixOf returns the zero prefix for a missing and an empty one.
func prefixOf(v jsonr.Value) netip.Prefix {
	if s, ok := v.Text(); v.Missing() || ok && s == "" {
		return netip.Prefix{}
	}
	return v.Prefix()
}
