package plugin

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// conf is the configuration, checked.
type conf struct {
	driver    string
	name      string
	stateDir  string
	network   model.NetworkConfig
	ipam      engine.IPAM // nil: none
	requested []netip.Addr
	ports     []engine.PortMapping
	mac       net.HardwareAddr // nil: any
	priority  int              // of the gateway, for this container
	dns       *model.DNS       // nil: the IPAM's
	names     *model.Names     // nil: the network has none
	// recall, if not nil, is called with the network as recorded, if it is.
	recall func(*engine.Network)
}

// parse refuses what it can before anything is changed. Keys it does not know
// it leaves to their vendors.
func (d driver) parse(call *cni.Call) (*conf, error) {
	o := call.Conf
	c := &conf{driver: d.name, name: call.Network, network: readNetwork(o)}
	if c.network.Bridge == "" {
		c.network.Bridge = d.bridge
	}
	c.stateDir = call.StateDir()
	c.dns = readDNS(o.Object("dns"))
	kind, err := call.IPAMType()
	if err != nil {
		return nil, err // of any key so far
	}
	if c.network.VLANTrunk, err = readTrunk(o); err != nil {
		return nil, err
	}
	if c.mac, err = readMAC(call); err != nil {
		return nil, err
	}
	if c.priority, err = readPriority(call, c.network.GatewayPriority); err != nil {
		return nil, err
	}
	if c.names, err = readNames(call); err != nil {
		return nil, err
	}
	if c.ports, err = call.Ports(); err != nil {
		return nil, err
	}
	switch {
	case d.tunnel:
		err = c.readTunnel(call, kind)
	case kind == "":
		err = call.AllowNoAddresses()
	case kind == engine.PoolType:
		c.ipam, c.requested, err = call.Pool()
		if pool, ok := c.ipam.(*engine.Pool); ok && err == nil {
			err = call.NamePoolError(pool.Suits(c.network))
		}
	default:
		c.ipam = cni.NewDelegate(call, kind)
	}
	return c, err
}

// readNetwork reads the keys of the reference plugin and, marked so, ours.
func readNetwork(o *cni.Object) model.NetworkConfig {
	n := model.NetworkConfig{}
	icc := true
	o.String("bridge", &n.Bridge)
	o.Bool("isGateway", &n.Gateway)
	o.Bool("isDefaultGateway", &n.DefaultGateway)
	o.Bool("forceAddress", &n.ForceAddress)
	o.Int("gwPriority", &n.GatewayPriority) // ours
	o.Bool("ipMasq", &n.Masquerade)
	o.Bool("hairpinMode", &n.Hairpin)
	o.Bool("promiscMode", &n.Promiscuous)
	o.Int("vlan", &n.VLAN)
	o.Bool("preserveDefaultVlan", &n.PreserveDefaultVLAN)
	o.Bool("macspoofchk", &n.SpoofCheck)
	o.Bool("enabledad", &n.EnableDAD)
	o.Bool("disableContainerInterface", &n.InterfaceDown)
	o.Bool("portIsolation", &n.Isolated)
	o.Bool("internal", &n.Internal) // ours
	o.Bool("icc", &icc)             // ours
	snat := true
	o.Bool("snat", &snat)               // of the reference portmap
	o.Bool("masqAll", &n.MasqueradeAll) // of the reference portmap
	n.NoHairpin, n.MasqueradeAll = !snat, n.MasqueradeAll && snat
	n.MTU, n.AutoMTU = readMTU(o)
	n.NoICC = !icc
	n.Backend = readBackend(o)
	readGateway(o, &n)
	n.Gateway = n.Gateway || n.DefaultGateway
	return n
}

// readGateway reads, of our own keys, those that say who reaches the containers
// and how they appear outside.
func readGateway(o *cni.Object, n *model.NetworkConfig) {
	n.GatewayModeIPv4, n.GatewayModeIPv6 = readMode(o)
	if o.Raw("isGateway") == nil && o.Raw("isDefaultGateway") == nil {
		n.DefaultGateway = leadsOut(n.GatewayModeIPv4) || leadsOut(n.GatewayModeIPv6)
	}
	n.NoMasquerade = o.Raw("ipMasq") != nil && !n.Masquerade
	n.SNATIPv4, n.SNATIPv6 = o.Addr("snatIPv4"), o.Addr("snatIPv6")
	n.TrustedInterfaces = o.Strings("trustedInterfaces")
	n.AcceptFwMark = readMark(o)
	n.IngressPolicy = cni.Choice(o, "ingressPolicy", model.IngressOpen, model.IngressSameBridge, model.IngressIsolated)
}

// readMode reads one mode for both families, or an object with one for each.
func readMode(o *cni.Object) (v4, v6 model.GatewayMode) {
	const key = "gatewayMode"
	mode := func(o *cni.Object, key string) model.GatewayMode {
		return cni.Choice(o, key, model.GatewayNAT, model.GatewayNATUnprotected, model.GatewayRouted, model.GatewayIsolated)
	}
	if raw := o.Raw(key); len(raw) == 0 || raw[0] != '{' {
		both := mode(o, key)
		return both, both
	}
	families := o.Object(key)
	if !families.Has("ipv4") && !families.Has("ipv6") { // misspelt, it would leave the network open
		o.Refuse(key, `a mode, or one for a family as {"ipv4": "nat", "ipv6": "routed"}`)
	}
	return mode(families, "ipv4"), mode(families, "ipv6")
}

// leadsOut says that a mode is of use to containers with a default route only.
func leadsOut(m model.GatewayMode) bool {
	return m != model.GatewayOpen && m != model.GatewayIsolated
}

// readMark reads a packet mark as iptables writes it, "0x1" or "0x1/0xff", or a
// number.
func readMark(o *cni.Object) model.FwMark {
	const key = "acceptFwMark"
	text := string(o.Raw(key))
	if strings.HasPrefix(text, `"`) {
		o.String(key, &text)
	}
	if text == "" {
		return model.FwMark{}
	}
	value, mask, masked := strings.Cut(text, "/")
	if !masked {
		mask = "0xffffffff"
	}
	v, err := strconv.ParseUint(value, 0, 32)
	m, maskErr := strconv.ParseUint(mask, 0, 32)
	if err != nil || maskErr != nil {
		o.Refuse(key, `a mark of 32 bits as "0x1", or with a mask as "0x1/0xff"`)
	}
	return model.FwMark{Value: uint32(v), Mask: uint32(m)}
}

// readBackend reads our key, in place of which the reference plugin has one for
// its only rules.
func readBackend(o *cni.Object) model.Backend {
	ours, masq := cni.Backend(o, "backend"), cni.Backend(o, "ipMasqBackend")
	if ours != "" && masq != "" && ours != masq {
		o.Refuse("ipMasqBackend", fmt.Sprintf("%q as backend is, or only one of them", ours))
	}
	return cmp.Or(ours, masq)
}

// readMTU reads a number or, ours, "auto".
func readMTU(o *cni.Object) (bytes int, auto bool) {
	raw := string(o.Raw("mtu"))
	if raw == "" || raw == `"auto"` {
		return 0, raw != ""
	}
	bytes, err := strconv.Atoi(raw)
	if err != nil {
		o.Refuse("mtu", `"auto" or a whole number of bytes`)
	}
	return bytes, false
}

// readDNS returns what replaces the IPAM's DNS: nil if no key of it is there.
func readDNS(o *cni.Object) *model.DNS {
	d := model.DNS{Nameservers: o.Strings("nameservers"), Search: o.Strings("search"), Options: o.Strings("options")}
	o.String("domain", &d.Domain)
	if d.Nameservers == nil && d.Domain == "" && d.Search == nil && d.Options == nil {
		return nil
	}
	return &d
}

// readMAC returns the address that the capability, args.cni or CNI_ARGS ask
// for, in this order of precedence; nil if none does.
func readMAC(call *cni.Call) (net.HardwareAddr, error) {
	var capability, arg string
	call.Conf.Object("runtimeConfig").String("mac", &capability)
	call.Conf.Object("args").Object("cni").String("mac", &arg)
	for _, s := range []struct{ key, value string }{
		{"runtimeConfig.mac", capability}, {"args.cni.mac", arg}, {"CNI_ARGS MAC", call.Args["MAC"]},
	} {
		if s.value != "" {
			return model.ParseMAC(s.key, s.value)
		}
	}
	return nil, call.Conf.Err()
}

// readPriority returns the gateway priority for the container: that of the
// capability, of args.cni or of the network, in this order of precedence.
func readPriority(call *cni.Call, network int) (container int, err error) {
	capability, arg := call.Conf.Object("runtimeConfig").OptionalInt("gwPriority"), call.Conf.Object("args").Object("cni").OptionalInt("gwPriority")
	container = network
	for _, s := range []struct {
		key   string
		value *int
	}{{"gwPriority", &network}, {"args.cni.gwPriority", arg}, {"runtimeConfig.gwPriority", capability}} {
		if s.value == nil {
			continue
		}
		if container = *s.value; container < math.MinInt32 || container > math.MaxInt32 {
			return 0, badKey(s.key, strconv.Itoa(container), "want a whole number from -2147483648 to 2147483647")
		}
	}
	return container, call.Conf.Err()
}

func readTrunk(o *cni.Object) ([]model.VLANRange, error) {
	var all []model.VLANRange
	for i, item := range o.List("vlanTrunk") {
		key := fmt.Sprintf("vlanTrunk[%d]", i)
		t := item.Object()
		lowest, highest, id := t.OptionalInt("minID"), t.OptionalInt("maxID"), t.OptionalInt("id")
		if (lowest == nil) != (highest == nil) {
			return nil, badKey(key, "only one of minID and maxID", "want both, or id")
		}
		for _, ends := range [][2]*int{{lowest, highest}, {id, id}} {
			if ends[0] == nil {
				continue
			}
			r, err := vlanRange(key, *ends[0], *ends[1])
			if err != nil {
				return nil, err
			}
			all = append(all, r)
		}
	}
	return all, o.Err()
}

func vlanRange(key string, lowest, highest int) (model.VLANRange, error) {
	if lowest < 1 || highest > 4094 || lowest > highest {
		return model.VLANRange{}, badKey(key, fmt.Sprintf("%d-%d", lowest, highest), "want IDs from 1 to 4094, minID not above maxID")
	}
	return model.VLANRange{Min: uint16(lowest), Max: uint16(highest)}, nil
}

func badKey(key, value, want string) error {
	return &model.ConfigError{Key: key, Value: value, Want: want}
}

// loose reads what DEL and GC need and takes defaults for what it cannot read:
// a configuration that was edited after ADD must not keep them from their work.
func (d driver) loose(call *cni.Call) (c *conf, err error) {
	c = &conf{driver: d.name, name: call.Network, stateDir: call.LooseStateDir(), network: model.NetworkConfig{Bridge: d.bridge}}
	bridge, kind := call.LooseString("bridge"), call.LooseString("ipam", "type")
	if model.ValidBridgeName(bridge) {
		c.network.Bridge = bridge
	}
	c.network.Backend = call.LooseBackend("backend", "ipMasqBackend")
	switch {
	case d.tunnel || kind == engine.PoolType:
		c.ipam, err = call.LoosePool()
	case kind != "":
		c.ipam = cni.NewDelegate(call, kind)
	}
	// GC takes the network away as it was made. DEL has the attachment's record,
	// and looks for the network's only where the configuration lacks something.
	if call.Command == "GC" || c.network.Bridge != bridge || c.ipam == nil {
		c.recall = func(n *engine.Network) { c.asRecorded(call, n) }
	}
	return c, err
}

// asRecorded has the network be the one that its record tells of, as far as
// that matters to what takes it away.
func (c *conf) asRecorded(call *cni.Call, n *engine.Network) {
	c.network.Bridge = n.Config().Bridge
	switch kind := n.IPAMType(); {
	case n.IPAM() != nil:
		c.ipam = n.IPAM()
	case kind != "" && (c.ipam == nil || c.ipam.Type() != kind):
		c.ipam = cni.NewDelegate(call, kind)
	}
}

// withNetwork calls fn with the network of the configuration.
func (c *conf) withNetwork(fn func(*engine.Controller, *engine.Network) error) error {
	opts := []engine.Option{engine.InOneNamespace()}
	if c.stateDir != "" {
		opts = append(opts, engine.WithStateDir(c.stateDir))
	}
	controller, err := engine.New(opts...)
	if err != nil {
		return err
	}
	// Not closed: the sockets go with the process, which ends now. To close them
	// before could wait for the kernel to free the rules that were deleted.
	if c.recall != nil {
		if recorded, err := controller.Network(c.name); err == nil {
			c.recall(recorded)
		}
	}
	def := []engine.NetworkOption{engine.WithConfig(c.network)}
	if c.ipam != nil {
		def = append(def, engine.WithIPAM(c.ipam))
	}
	n, err := controller.DefineNetwork(c.driver, c.name, def...)
	if err != nil {
		return err
	}
	return fn(controller, n)
}
