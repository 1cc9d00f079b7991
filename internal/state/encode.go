package state

import "github.com/libnet-cni/libnet/internal/jsonw"

// encode returns what json.Unmarshal makes the same record of.
func (r Endpoint) encode() []byte {
	var o, ns jsonw.Object
	o.String("Network", r.Network)
	o.String("ContainerID", r.ContainerID)
	o.String("IfName", r.IfName)
	o.String("Phase", string(r.Phase))
	o.String("Boot", r.Boot)
	o.OptionalString("Netns", r.Netns)
	ns.Uint("Dev", r.NetnsID.Dev)
	ns.Uint("Ino", r.NetnsID.Ino)
	ns.Uint("Cookie", r.NetnsID.Cookie)
	o.Raw("NetnsID", ns.Bytes())
	o.OptionalString("IPAM", r.IPAM)
	o.OptionalString("DataDir", r.DataDir)
	o.String("Bridge", r.Bridge)
	o.String("HostName", r.HostName)
	o.OptionalString("MAC", r.MAC)
	o.Bool("Rules", r.Rules)
	o.OptionalString("Backend", r.Backend)
	o.OptionalString("Runtime", r.Runtime)
	o.Raw("Addresses", encodeAddresses(r.Addresses))
	o.Raw("Routes", encodeRoutes(r.Routes))
	o.Raw("DNS", r.DNS.encode())
	o.Raw("Links", encodeLinks(r.Links))
	if r.Ports != nil {
		o.Raw("Ports", encodePorts(r.Ports))
	}
	if len(r.Config) > 0 {
		o.Raw("Config", r.Config)
	}
	return o.Bytes()
}

func encodeAddresses(addrs []Address) []byte {
	var list jsonw.List
	for _, a := range addrs {
		var o jsonw.Object
		o.String("Prefix", text(a.Prefix))
		o.String("Gateway", text(a.Gateway))
		list.Add(o.Bytes())
	}
	return list.Bytes()
}

func encodeRoutes(routes []Route) []byte {
	var list jsonw.List
	for _, r := range routes {
		var o jsonw.Object
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
		list.Add(o.Bytes())
	}
	return list.Bytes()
}

func (d DNS) encode() []byte {
	var o jsonw.Object
	o.Strings("Nameservers", d.Nameservers)
	o.OptionalString("Domain", d.Domain)
	o.Strings("Search", d.Search)
	o.Strings("Options", d.Options)
	return o.Bytes()
}

func encodeLinks(links []Link) []byte {
	var list jsonw.List
	for _, l := range links {
		var o jsonw.Object
		o.String("Name", l.Name)
		o.String("MAC", l.MAC)
		o.OptionalInt("MTU", l.MTU)
		o.OptionalString("Netns", l.Netns)
		list.Add(o.Bytes())
	}
	return list.Bytes()
}

func encodePorts(ports []Port) []byte {
	var list jsonw.List
	for _, p := range ports {
		var o jsonw.Object
		o.String("Protocol", p.Protocol)
		o.OptionalString("HostIP", text(p.HostIP))
		o.Int("HostPort", p.HostPort)
		o.OptionalInt("HostPortEnd", p.HostPortEnd)
		o.Int("ContainerPort", p.ContainerPort)
		if p.Sources != nil {
			var sources []string
			for _, s := range p.Sources {
				sources = append(sources, text(s))
			}
			o.Strings("Sources", sources)
		}
		list.Add(o.Bytes())
	}
	return list.Bytes()
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
	return o.Bytes()
}

func (s Sandbox) encode() []byte {
	var o jsonw.Object
	o.String("ID", s.ID)
	o.String("Path", s.Path)
	return o.Bytes()
}
