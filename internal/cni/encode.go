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
	var links, ips, routes jsonw.List
	o.String("cniVersion", version)
	for _, l := range r.Interfaces {
		links.Add(encodeInterface(l))
	}
	for _, ip := range r.IPs {
		ips.Add(encodeIP(ip))
	}
	for _, route := range r.Routes {
		routes.Add(encodeRoute(route))
	}
	for _, list := range []struct {
		name string
		n    int
		jsonw.List
	}{{"interfaces", len(r.Interfaces), links}, {"ips", len(r.IPs), ips}, {"routes", len(r.Routes), routes}} {
		if list.n > 0 {
			o.Raw(list.name, list.Bytes())
		}
	}
	if !r.DNS.IsEmpty() {
		o.Raw("dns", encodeDNS(r.DNS))
	}
	return o.Bytes()
}

func encodeInterface(l *types100.Interface) []byte {
	var o jsonw.Object
	o.String("name", l.Name)
	o.OptionalString("mac", l.Mac)
	o.OptionalInt("mtu", l.Mtu)
	o.OptionalString("sandbox", l.Sandbox)
	return o.Bytes()
}

func encodeIP(ip *types100.IPConfig) []byte {
	var o jsonw.Object
	if ip.Interface != nil {
		o.Int("interface", *ip.Interface)
	}
	o.String("address", ip.Address.String())
	if ip.Gateway != nil {
		o.String("gateway", ip.Gateway.String())
	}
	return o.Bytes()
}

func encodeRoute(r *types.Route) []byte {
	var o jsonw.Object
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
	return o.Bytes()
}

func encodeDNS(d types.DNS) []byte {
	var o jsonw.Object
	o.Strings("nameservers", d.Nameservers)
	o.OptionalString("domain", d.Domain)
	o.Strings("search", d.Search)
	o.Strings("options", d.Options)
	return o.Bytes()
}
