package cni

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// Result is what ADD answers: a result of the newest version, or that of the
// plugin before as it came.
type Result struct {
	*types100.Result                 // nil: passed is
	passed           json.RawMessage // of the configuration's version
	ports            []engine.PortMapping
}

// write prints the result as version.
func (r *Result) write(w io.Writer, version string) error {
	if r.passed == nil && r.ports == nil {
		return writeResult(w, r.Result, version)
	}
	out := []byte(r.passed)
	if r.passed == nil {
		var made bytes.Buffer
		if err := writeResult(&made, r.Result, version); err != nil {
			return err
		}
		out = made.Bytes()
	}
	if r.ports != nil {
		out = withPorts(out, r.ports)
	}
	_, err := w.Write(append(slices.Clip(out), '\n'))
	return err
}

// containerLink is the place of the container's interface in a result: after
// the bridge and the host's end, as in the reference bridge plugin's.
const containerLink = 2

// EndpointResult is the result of an ADD that made a complete endpoint.
func EndpointResult(e *engine.Endpoint) *Result {
	r := AddressResult(e.Addressing())
	for _, l := range e.Interfaces() {
		r.Interfaces = append(r.Interfaces, &types100.Interface{Name: l.Name, Mac: l.MAC, Mtu: l.MTU, Sandbox: l.Netns})
	}
	for _, ip := range r.IPs {
		ip.Interface = types100.Int(containerLink)
	}
	return r
}

// AddressResult is the abbreviated result of an IPAM plugin (spec 1.1.0,
// section 4, Delegated plugins).
func AddressResult(a model.Addressing) *Result {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: types.DNS(a.DNS)}
	for _, addr := range a.Addresses {
		r.IPs = append(r.IPs, &types100.IPConfig{Address: ipNet(addr.Prefix), Gateway: netIP(addr.Gateway)})
	}
	for _, route := range a.Routes {
		r.Routes = append(r.Routes, &types.Route{
			Dst: ipNet(route.Dst), GW: netIP(route.Gateway), MTU: route.MTU, AdvMSS: route.AdvMSS,
			Priority: route.Priority, Table: route.Table, Scope: route.Scope,
		})
	}
	return &Result{Result: r}
}

// addressing is the inverse of AddressResult. Addresses of another interface
// than link are left out; link -1 takes all.
func addressing(r *types100.Result, link int) model.Addressing {
	a := model.Addressing{DNS: model.DNS(r.DNS)}
	for _, ip := range r.IPs {
		if link >= 0 && ip.Interface != nil && *ip.Interface != link {
			continue
		}
		a.Addresses = append(a.Addresses, model.Address{Prefix: prefix(ip.Address), Gateway: addr(ip.Gateway)})
	}
	for _, route := range r.Routes {
		a.Routes = append(a.Routes, routeOf(route))
	}
	return a
}

func routeOf(r *types.Route) model.Route {
	return model.Route{
		Dst: prefix(r.Dst), Gateway: addr(r.GW), MTU: r.MTU, AdvMSS: r.AdvMSS,
		Priority: r.Priority, Table: r.Table, Scope: r.Scope,
	}
}

// Expectation is what CHECK has to find: the result of the whole chain, in
// which plugins after ours may have changed things. A plugin that changes the
// MTU, as tuning, does not say so in the result: it is not expected.
func (c *Call) Expectation() (engine.Expectation, error) {
	prev, err := c.prevResult()
	if err != nil {
		return engine.Expectation{}, err
	}
	want := engine.Expectation{
		ID:    model.ID{Network: c.Network, ContainerID: c.ContainerID, IfName: c.IfName},
		Netns: c.Netns,
	}
	for i, l := range prev.Interfaces {
		if l.Name == c.IfName && l.Sandbox != "" {
			want.MAC = l.Mac
			want.Addressing = addressing(prev, i)
			if i > 0 && prev.Interfaces[i-1].Sandbox == "" { // as both bridge plugins order them
				want.HostName = prev.Interfaces[i-1].Name
			}
			return want, nil
		}
	}
	return want, codef(types.ErrInvalidNetworkConfig, "prevResult: has no interface %q in a sandbox", c.IfName)
}

// ExpectedAddresses are those of prevResult on the interface of the call; nil
// if there is no prevResult, which an IPAM plugin does without. Addresses that
// name no interface are the call's.
func (c *Call) ExpectedAddresses() ([]netip.Addr, error) {
	if c.Conf.At("prevResult").Missing() {
		return nil, nil
	}
	prev, err := c.prevResult()
	if err != nil {
		return nil, err
	}
	link := slices.IndexFunc(prev.Interfaces, func(l *types100.Interface) bool {
		return l.Name == c.IfName && l.Sandbox != ""
	})
	var out []netip.Addr
	for _, a := range addressing(prev, link).Addresses {
		out = append(out, a.Prefix.Addr())
	}
	return out, nil
}

// PrevResult returns the result of the plugin before, for a chained plugin that
// adds nothing to it. It is passed on as it came, with what this module does
// not know of, unless it is of another version than the configuration.
func (c *Call) PrevResult() (*Result, error) {
	raw := c.Conf.At("prevResult").Raw()
	if raw == nil {
		return nil, codef(types.ErrInvalidNetworkConfig, "prevResult: missing: this plugin works behind one that makes the container's interface")
	}
	prev := c.Conf.At("prevResult").Object()
	var version string
	prev.String("cniVersion", &version)
	if err := prev.Err(); err != nil {
		return nil, err
	}
	switch version {
	case c.Version:
		return &Result{passed: raw}, nil
	case "":
		return &Result{passed: withVersion(raw, c.Version)}, nil
	}
	r, err := c.prevResult()
	return &Result{Result: r}, err
}

// withVersion returns a result that says which version it is of.
func withVersion(result []byte, version string) []byte {
	keys := splitObject(result)
	setKey(keys, "cniVersion", version)
	return mustMarshal(keys)
}

// setKey sets a key of an object, which may spell it in another case.
func setKey(keys map[string]json.RawMessage, key string, value any) {
	maps.DeleteFunc(keys, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
	keys[key] = mustMarshal(value)
}

// mustMarshal is json.Marshal of what always has a JSON form.
func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// PrevAddresses returns the first address of each family that prevResult has on
// the interface of the call, as the reference portmap plugin chooses them. One
// that names no interface is the call's.
func (c *Call) PrevAddresses() ([]netip.Addr, error) {
	prev := c.Conf.At("prevResult").Object()
	var own []bool
	for _, item := range prev.At("interfaces").Items() {
		var name, sandbox string
		link := item.Object()
		link.String("name", &name)
		link.String("sandbox", &sandbox)
		own = append(own, name == c.IfName && sandbox != "")
	}
	var all []netip.Addr
	take := func(o *jsonr.Object, key string) {
		a := o.At(key).Prefix().Addr().Unmap()
		if !slices.ContainsFunc(all, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			all = append(all, a)
		}
	}
	for _, item := range prev.At("ips").Items() {
		ip := item.Object()
		if n := ip.At("interface").OptionalInt(); n == nil || *n < 0 || *n >= len(own) || own[*n] {
			take(ip, "address")
		}
	}
	for _, key := range []string{"ip4", "ip6"} { // before 0.3.0
		if old := prev.At(key); !old.Missing() {
			take(old.Object(), "ip")
		}
	}
	if err := prev.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, badKey("prevResult.ips", "none of "+c.IfName, "want an address of the container to publish ports of")
	}
	return all, nil
}

func (c *Call) prevResult() (*types100.Result, error) {
	raw := c.Conf.At("prevResult").Raw()
	if raw == nil {
		return nil, codef(types.ErrInvalidNetworkConfig, "prevResult: missing: %s needs the result of ADD", c.Command)
	}
	prev, err := c.decodeResult(raw)
	if err != nil {
		return nil, codef(types.ErrDecodingFailure, "prevResult: %v", err)
	}
	return prev, nil
}

// decodeResult decodes a result, which is of its configuration's version
// unless it says otherwise.
func (c *Call) decodeResult(data []byte) (*types100.Result, error) {
	o, err := jsonr.Parse(data)
	if err != nil {
		return nil, err
	}
	version := c.Version
	o.String("cniVersion", &version)
	for _, key := range []string{"interfaces", "ips", "routes"} {
		for _, item := range o.At(key).Items() {
			item.Object() // the CNI module does not expect null in a list
		}
	}
	if err := o.Err(); err != nil {
		return nil, err
	}
	r, err := create.Create(version, data)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(r)
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func netIP(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefix converts what JSON decoding made; a mask with holes, which it refuses,
// would become length 0.
func prefix(n net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), ones)
}
