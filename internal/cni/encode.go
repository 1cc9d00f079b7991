package cni

import (
	"io"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/libnet-cni/libnet/internal/jsonw"
)

// writeResult prints a result of the newest version as version. The two
// versions of today are written here, those before by the CNI module.
func writeResult(w io.Writer, r *types100.Result, version string) error {
	if version != "1.0.0" && version != "1.1.0" {
		old, err := r.GetAsVersion(version)
		if err != nil {
			return err
		}
		return old.PrintTo(w)
	}
	_, err := w.Write(append(encodeResult(r, version), '\n'))
	return err
}

func encodeResult(r *types100.Result, version string) []byte {
	var o jsonw.Object
	o.String("cniVersion", version)
	encodeList(&o, "interfaces", r.Interfaces, func(o *jsonw.Object, l *types100.Interface) { encodeInterface(o, l, version) })
	encodeList(&o, "ips", r.IPs, encodeIP)
	encodeList(&o, "routes", r.Routes, encodeRoute)
	if !r.DNS.IsEmpty() {
		o.Object("dns", func(o *jsonw.Object) { encodeDNS(o, r.DNS) })
	}
	return o.Bytes()
}

// encodeList writes a list, unless it is empty.
func encodeList[T any](o *jsonw.Object, name string, list []T, encode func(*jsonw.Object, T)) {
	if len(list) > 0 {
		o.Objects(name, len(list), func(i int, o *jsonw.Object) { encode(o, list[i]) })
	}
}

func encodeInterface(o *jsonw.Object, l *types100.Interface, version string) {
	o.String("name", l.Name)
	o.OptionalString("mac", l.Mac)
	if version != "1.0.0" { // mtu came with 1.1.0
		o.OptionalInt("mtu", l.Mtu)
	}
	o.OptionalString("sandbox", l.Sandbox)
}

func encodeIP(o *jsonw.Object, ip *types100.IPConfig) {
	if ip.Interface != nil {
		o.Int("interface", *ip.Interface)
	}
	o.String("address", ip.Address.String())
	if ip.Gateway != nil {
		o.String("gateway", ip.Gateway.String())
	}
}

func encodeRoute(o *jsonw.Object, r *types.Route) {
	o.String("dst", r.Dst.String())
	if r.GW != nil {
		o.String("gw", r.GW.String())
	}
	o.OptionalInt("mtu", r.MTU)
	o.OptionalInt("advmss", r.AdvMSS)
	o.OptionalInt("priority", r.Priority)
	if r.Table != nil {
		o.Int("table", *r.Table)
	}
	if r.Scope != nil {
		o.Int("scope", *r.Scope)
	}
}

func encodeDNS(o *jsonw.Object, d types.DNS) {
	o.Strings("nameservers", d.Nameservers)
	o.OptionalString("domain", d.Domain)
	o.Strings("search", d.Search)
	o.Strings("options", d.Options)
}
