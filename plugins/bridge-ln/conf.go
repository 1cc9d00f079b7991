package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/pkg/libnet"
)

// defaultBridge is the bridge of a configuration that names none, as in the
// reference bridge plugin.
const defaultBridge = "cni0"

// rawConf is the configuration as it comes. Keys without a comment are the
// reference plugin's.
type rawConf struct {
	Bridge                    string      `json:"bridge"`
	IsGateway                 bool        `json:"isGateway"`
	IsDefaultGateway          bool        `json:"isDefaultGateway"`
	ForceAddress              bool        `json:"forceAddress"`
	IPMasq                    bool        `json:"ipMasq"`
	IPMasqBackend             string      `json:"ipMasqBackend"`
	MTU                       rawMTU      `json:"mtu"` // "auto" is ours
	HairpinMode               bool        `json:"hairpinMode"`
	PromiscMode               bool        `json:"promiscMode"`
	VLAN                      int         `json:"vlan"`
	VLANTrunk                 []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN       bool        `json:"preserveDefaultVlan"`
	MACSpoofCheck             bool        `json:"macspoofchk"`
	EnableDAD                 bool        `json:"enabledad"`
	DisableContainerInterface bool        `json:"disableContainerInterface"`
	PortIsolation             bool        `json:"portIsolation"`
	Internal                  bool        `json:"internal"` // ours
	ICC                       *bool       `json:"icc"`      // ours; missing: true
	StateDir                  string      `json:"stateDir"` // ours; missing: /run/libnet
	DNS                       libnet.DNS  `json:"dns"`
	IPAM                      struct{}    `json:"ipam"` // cni.Call reads it
	Args                      struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
}

type vlanTrunk struct {
	ID    *int `json:"id"`
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
}

// rawMTU is a number or "auto".
type rawMTU struct {
	bytes int
	auto  bool
}

// UnmarshalJSON accepts both forms.
func (m *rawMTU) UnmarshalJSON(data []byte) error {
	if string(data) == `"auto"` {
		m.auto = true
		return nil
	}
	if err := json.Unmarshal(data, &m.bytes); err != nil {
		return badKey("mtu", string(data), `want "auto" or a number of bytes`)
	}
	return nil
}

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
	raw := rawConf{Bridge: defaultBridge}
	if err := cni.Unmarshal(call.Stdin, &raw); err != nil {
		return nil, err
	}
	c := &conf{name: call.Network, stateDir: raw.StateDir, network: raw.network()}
	var err error
	if c.network.VLANTrunk, err = parseTrunk(raw.VLANTrunk); err != nil {
		return nil, err
	}
	if b := raw.IPMasqBackend; b != "" && b != "auto" && b != "nftables" {
		return nil, badKey("ipMasqBackend", fmt.Sprintf("%q", b), `want "nftables" or "auto"; the iptables backend is not built yet`)
	}
	if c.mac, err = raw.mac(call.Args); err != nil {
		return nil, err
	}
	if d := raw.DNS; d.Nameservers != nil || d.Domain != "" || d.Search != nil || d.Options != nil {
		c.dns = &d
	}
	switch kind := call.IPAMType(); kind {
	case "":
		err = call.AllowNoAddresses()
	case libnet.PoolType:
		c.ipam, c.requested, err = call.Pool()
	default:
		c.ipam = cni.NewDelegate(call, kind)
	}
	return c, err
}

func (raw *rawConf) network() libnet.NetworkConfig {
	return libnet.NetworkConfig{
		Bridge: raw.Bridge, MTU: raw.MTU.bytes, AutoMTU: raw.MTU.auto,
		Gateway: raw.IsGateway || raw.IsDefaultGateway, DefaultGateway: raw.IsDefaultGateway,
		ForceAddress: raw.ForceAddress, Masquerade: raw.IPMasq,
		Hairpin: raw.HairpinMode, Promiscuous: raw.PromiscMode,
		VLAN: raw.VLAN, PreserveDefaultVLAN: raw.PreserveDefaultVLAN,
		SpoofCheck: raw.MACSpoofCheck, EnableDAD: raw.EnableDAD,
		InterfaceDown: raw.DisableContainerInterface, Isolated: raw.PortIsolation,
		Internal: raw.Internal, NoICC: raw.ICC != nil && !*raw.ICC,
	}
}

// mac returns the address that the capability, args.cni or CNI_ARGS ask for,
// in this order of precedence.
func (raw *rawConf) mac(args cni.Args) (net.HardwareAddr, error) {
	for _, s := range []struct{ key, value string }{
		{"runtimeConfig.mac", raw.RuntimeConfig.MAC},
		{"args.cni.mac", raw.Args.CNI.MAC},
		{"CNI_ARGS MAC", args["MAC"]},
	} {
		if s.value != "" {
			return libnet.ParseMAC(s.key, s.value)
		}
	}
	return nil, nil
}

func parseTrunk(raw []vlanTrunk) ([]libnet.VLANRange, error) {
	var all []libnet.VLANRange
	for i, t := range raw {
		key := fmt.Sprintf("vlanTrunk[%d]", i)
		if (t.MinID == nil) != (t.MaxID == nil) {
			return nil, badKey(key, "only one of minID and maxID", "want both, or id")
		}
		if t.MinID != nil {
			r, err := vlanRange(key, *t.MinID, *t.MaxID)
			if err != nil {
				return nil, err
			}
			all = append(all, r)
		}
		if t.ID != nil {
			r, err := vlanRange(key, *t.ID, *t.ID)
			if err != nil {
				return nil, err
			}
			all = append(all, r)
		}
	}
	return all, nil
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
	var raw struct{ Bridge, StateDir json.RawMessage }
	_ = json.Unmarshal(call.Stdin, &raw)
	c = &conf{name: call.Network, network: libnet.NetworkConfig{Bridge: defaultBridge}}
	if s := looseString(raw.Bridge); s != "" {
		c.network.Bridge = s
	}
	c.stateDir = looseString(raw.StateDir)
	switch kind := call.IPAMType(); kind {
	case "":
	case libnet.PoolType:
		c.ipam, err = call.LoosePool()
	default:
		c.ipam = cni.NewDelegate(call, kind)
	}
	return c, err
}

func looseString(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
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
