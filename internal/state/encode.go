package state

import "github.com/libnet-cni/libnet/internal/jsonw"

// encode returns what json.Unmarshal makes the same record of.
func (r Endpoint) encode() []byte {
	var o jsonw.Object
	o.String("Network", r.Network)
	o.String("ContainerID", r.ContainerID)
	o.String("IfName", r.IfName)
	o.String("Phase", string(r.Phase))
	o.String("Boot", r.Boot)
	o.OptionalString("Netns", r.Netns)
	o.Object("NetnsID", r.NetnsID.encode)
	o.OptionalString("MountNS", r.MountNS)
	o.OptionalString("IPAM", r.IPAM)
	o.OptionalString("DataDir", r.DataDir)
	o.String("Bridge", r.Bridge)
	o.String("HostName", r.HostName)
	o.OptionalString("MAC", r.MAC)
	o.Bool("Rules", r.Rules)
	o.OptionalString("Backend", r.Backend)
	o.OptionalString("Guard", r.Guard)
	o.OptionalString("Tunnel", r.Tunnel)
	o.OptionalString("Spare", r.Spare)
	o.OptionalString("Runtime", r.Runtime)
	o.OptionalString("Workload", r.Workload)
	o.OptionalString("PodUID", r.PodUID)
	o.OptionalInt("GatewayPriority", r.GatewayPriority)
	o.OptionalString("LinkName", r.LinkName)
	if r.NextName {
		o.Bool("NextName", true)
	}
	if r.Names != nil {
		o.Object("Names", r.Names.encode)
	}
	o.OptionalInt("Fast", r.Fast)
	if r.OwnRules != nil {
		o.Object("OwnRules", r.OwnRules.encode)
	}
	o.Objects("Addresses", len(r.Addresses), func(i int, o *jsonw.Object) { r.Addresses[i].encode(o) })
	o.Objects("Routes", len(r.Routes), func(i int, o *jsonw.Object) { r.Routes[i].encode(o) })
	o.Object("DNS", r.DNS.encode)
	o.Objects("Links", len(r.Links), func(i int, o *jsonw.Object) { r.Links[i].encode(o) })
	if r.Ports != nil {
		o.Objects("Ports", len(r.Ports), func(i int, o *jsonw.Object) { r.Ports[i].encode(o) })
	}
	if len(r.Config) > 0 {
		o.Raw("Config", r.Config)
	}
	return o.Bytes()
}

func (n NetnsID) encode(o *jsonw.Object) {
	o.Uint("Dev", n.Dev)
	o.Uint("Ino", n.Ino)
	o.Uint("Cookie", n.Cookie)
}

func (n Names) encode(o *jsonw.Object) {
	o.Strings("Own", n.Own)
	o.OptionalString("Domain", n.Domain)
	o.OptionalString("Responder", n.Responder)
	o.OptionalInt("Link", n.Link)
}

func (r OwnRules) encode(o *jsonw.Object) {
	o.Bool("MasqueradeIPv4", r.MasqueradeIPv4)
	o.Bool("MasqueradeIPv6", r.MasqueradeIPv6)
	o.Bool("SpoofCheck", r.SpoofCheck)
	o.Bool("NoHairpin", r.NoHairpin)
	o.Bool("MasqueradeAll", r.MasqueradeAll)
	var source []string
	for _, a := range r.Source {
		source = append(source, text(a))
	}
	o.Strings("Source", source)
}

func (a Address) encode(o *jsonw.Object) {
	o.String("Prefix", text(a.Prefix))
	o.String("Gateway", text(a.Gateway))
}

func (r Route) encode(o *jsonw.Object) {
	o.String("Dst", text(r.Dst))
	o.String("Gateway", text(r.Gateway))
	o.OptionalInt("MTU", r.MTU)
	o.OptionalInt("AdvMSS", r.AdvMSS)
	o.OptionalInt("Priority", r.Priority)
	if r.Table != nil {
		o.Int("Table", *r.Table)
	}
	if r.Scope != nil {
		o.Int("Scope", *r.Scope)
	}
}

func (d DNS) encode(o *jsonw.Object) {
	o.Strings("Nameservers", d.Nameservers)
	o.OptionalString("Domain", d.Domain)
	o.Strings("Search", d.Search)
	o.Strings("Options", d.Options)
}

func (l Link) encode(o *jsonw.Object) {
	o.String("Name", l.Name)
	o.String("MAC", l.MAC)
	o.OptionalInt("MTU", l.MTU)
	o.OptionalString("Netns", l.Netns)
}

func (p Port) encode(o *jsonw.Object) {
	o.String("Protocol", p.Protocol)
	o.OptionalString("HostIP", text(p.HostIP))
	o.Int("HostPort", p.HostPort)
	o.OptionalInt("HostPortEnd", p.HostPortEnd)
	o.Int("ContainerPort", p.ContainerPort)
	var sources []string
	for _, s := range p.Sources {
		sources = append(sources, text(s))
	}
	o.Strings("Sources", sources)
}

// text is how netip values stand in JSON; the zero values are "".
func text(v interface{ MarshalText() ([]byte, error) }) string {
	b, _ := v.MarshalText() // of netip: never fails
	return string(b)
}

func (n Network) encode() []byte {
	var o jsonw.Object
	o.String("Name", n.Name)
	o.String("Driver", n.Driver)
	o.String("Bridge", n.Bridge)
	o.String("Fingerprint", n.Fingerprint)
	if len(n.Config) > 0 {
		o.Raw("Config", n.Config)
	}
	if len(n.Layers) > 0 {
		o.Raw("Layers", n.Layers)
	}
	return o.Bytes()
}

func (s Sandbox) encode() []byte {
	var o jsonw.Object
	o.String("ID", s.ID)
	o.String("Path", s.Path)
	if s.Adopted {
		o.Bool("Adopted", true)
	}
	return o.Bytes()
}
