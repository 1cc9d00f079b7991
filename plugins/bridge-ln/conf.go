package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

// defaultBridge is the bridge of a configuration that names none, as in the
// reference bridge plugin.
const defaultBridge = "cni0"

// conf is the configuration, checked.
type conf struct {
	name      string
	stateDir  string
	network   libnet.NetworkConfig
	ipam      libnet.IPAM // nil: none
	requested []netip.Addr
	mac       net.HardwareAddr // nil: any
	dns       *libnet.DNS      // nil: the IPAM's
}

// parse refuses what it can before anything is changed. Keys it does not know
// it leaves to their vendors.
func parse(call *cni.Call) (*conf, error) {
	o := call.Conf
	c := &conf{name: call.Network, network: readNetwork(o)}
	o.String("stateDir", &c.stateDir)
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
	if err := checkBackend(o); err != nil {
		return nil, err
	}
	switch kind {
	case "":
		err = call.AllowNoAddresses()
	case libnet.PoolType:
		c.ipam, c.requested, err = call.Pool()
	default:
		c.ipam = cni.NewDelegate(call, kind)
	}
	return c, err
}

// readNetwork reads the keys of the reference plugin and, marked so, ours.
func readNetwork(o *cni.Object) libnet.NetworkConfig {
	n := libnet.NetworkConfig{Bridge: defaultBridge}
	icc := true
	o.String("bridge", &n.Bridge)
	o.Bool("isGateway", &n.Gateway)
	o.Bool("isDefaultGateway", &n.DefaultGateway)
	o.Bool("forceAddress", &n.ForceAddress)
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
	n.MTU, n.AutoMTU = readMTU(o)
	n.Gateway = n.Gateway || n.DefaultGateway
	n.NoICC = !icc
	return n
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
func readDNS(o *cni.Object) *libnet.DNS {
	d := libnet.DNS{Nameservers: o.Strings("nameservers"), Search: o.Strings("search"), Options: o.Strings("options")}
	o.String("domain", &d.Domain)
	if d.Nameservers == nil && d.Domain == "" && d.Search == nil && d.Options == nil {
		return nil
	}
	return &d
}

func checkBackend(o *cni.Object) error {
	backend := "auto"
	o.String("ipMasqBackend", &backend)
	if backend != "" && backend != "auto" && backend != "nftables" {
		return badKey("ipMasqBackend", fmt.Sprintf("%q", backend), `want "nftables" or "auto"; the iptables backend is not built yet`)
	}
	return o.Err()
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
			return libnet.ParseMAC(s.key, s.value)
		}
	}
	return nil, call.Conf.Err()
}

func readTrunk(o *cni.Object) ([]libnet.VLANRange, error) {
	var all []libnet.VLANRange
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

func vlanRange(key string, lowest, highest int) (libnet.VLANRange, error) {
	if lowest < 1 || highest > 4094 || lowest > highest {
		return libnet.VLANRange{}, badKey(key, fmt.Sprintf("%d-%d", lowest, highest), "want IDs from 1 to 4094, minID not above maxID")
	}
	return libnet.VLANRange{Min: uint16(lowest), Max: uint16(highest)}, nil
}

func badKey(key, value, want string) error {
	return &libnet.ConfigError{Key: key, Value: value, Want: want}
}

// loose reads what DEL and GC need and takes defaults for what it cannot read:
// a configuration that was edited after ADD must not keep them from their work.
func loose(call *cni.Call) (c *conf, err error) {
	c = &conf{name: call.Network, stateDir: call.LooseString("stateDir"), network: libnet.NetworkConfig{Bridge: defaultBridge}}
	if s := call.LooseString("bridge"); s != "" {
		c.network.Bridge = s
	}
	switch kind := call.LooseString("ipam", "type"); kind {
	case "":
	case libnet.PoolType:
		c.ipam, err = call.LoosePool()
	default:
		c.ipam = cni.NewDelegate(call, kind)
	}
	return c, err
}

// withNetwork calls fn with the network of the configuration.
func (c *conf) withNetwork(fn func(*libnet.Controller, *libnet.Network) error) error {
	var opts []libnet.Option
	if c.stateDir != "" {
		opts = append(opts, libnet.WithStateDir(c.stateDir))
	}
	controller, err := libnet.New(opts...)
	if err != nil {
		return err
	}
	defer controller.Close()
	def := []libnet.NetworkOption{libnet.WithConfig(c.network)}
	if c.ipam != nil {
		def = append(def, libnet.WithIPAM(c.ipam))
	}
	n, err := controller.DefineNetwork("bridge", c.name, def...)
	if err != nil {
		return err
	}
	return fn(controller, n)
}
