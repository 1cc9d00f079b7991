package netconf

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"strconv"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// Network is a configuration of bridge-ln or overlay-ln.
type Network struct {
	StateDir string // empty: libnet's default
	Config   model.NetworkConfig
	// IPAMType is ipam.type; empty if there is none.
	IPAMType string
	// Pool is the ipam section, if the type is "ipam-ln"; with overlay-ln always, and without
	// range sets: the addresses are those of the host's block.
	Pool     *Pool
	Ports    []Port
	MAC      net.HardwareAddr // nil: any
	Priority int              // of the gateway, for this container
	DNS      *model.DNS       // nil: the IPAM's
	// Names were chosen for this container; nil: the network has no names.
	Names *model.Names
	// Limited says that another plugin limits the container's bandwidth.
	Limited bool
	// BlockSize is that of overlay-ln.
	BlockSize model.BlockSize
	// ByAgent says of overlay-ln that ln-agent knows the hosts.
	ByAgent bool
	Log     Log
	// Template is the name of that in configFrom; empty: none. What it says is not looked up.
	Template string
}

// defaultBridge is that of the reference bridge plugin.
const defaultBridge = "cni0"

// ReadNetwork reads the configuration of bridge-ln or overlay-ln, and refuses what it can
// before anything is changed. Which values contradict each other, model says.
func ReadNetwork(p Plugin, s Source) (*Network, error) {
	if p == Overlay {
		return ReadOverlay(s)
	}
	return ReadBridge(s)
}

// ReadBridge is ReadNetwork of bridge-ln, which does not link what reads the keys of overlay-ln.
func ReadBridge(s Source) (*Network, error) { return readNetwork(Bridge, s, (*Network).readSets) }

// ReadOverlay is ReadNetwork of overlay-ln.
func ReadOverlay(s Source) (*Network, error) { return readNetwork(Overlay, s, (*Network).readTunnel) }

func readNetwork(p Plugin, s Source, rest func(*Network, values, Source, sections) error) (*Network, error) {
	v := read(s.Conf, table[:])
	n := &Network{Config: readConfig(p, v), StateDir: readStateDir(v[keyStateDir]), Log: readLog(v[keyLog]), DNS: readDNS(v[keyDNS])}
	v[keyStrict].Bool(new(bool))
	in := sections{ipam: inside(v[keyIPAM], ipamTable), runtime: inside(v[keyRuntimeConfig], runtimeTable), args: readArgs(v)}
	in.ipam[ipamType].String(&n.IPAMType)
	if err := s.Conf.Err(); err != nil {
		return nil, err // of any key so far
	}
	var err error
	if n.Template, err = TemplateOf(s.Conf); err != nil {
		return nil, err
	}
	if n.Config.VLANTrunk, err = readTrunk(v[keyVLANTrunk]); err != nil {
		return nil, err
	}
	if n.MAC, err = readMAC(in.runtime[capMAC], in.args[argMAC], s.Args["MAC"]); err != nil {
		return nil, err
	}
	if n.Priority, err = readPriority(in.runtime[capGwPriority], in.args[argGwPriority], v[keyGwPriority]); err != nil {
		return nil, err
	}
	if n.Names, err = readNames(v[keyNames], s, in); err != nil {
		return nil, err
	}
	n.Ports = readPorts(in.runtime[capPortMappings])
	n.Limited = hasRate(in.runtime[capBandwidth])
	if err := s.Conf.Err(); err != nil {
		return nil, err
	}
	return n, rest(n, v, s, in)
}

// readSets reads the ipam section, if it is ours.
func (n *Network) readSets(_ values, s Source, in sections) (err error) {
	if n.IPAMType == poolType {
		n.Pool, err = readSets(s, in)
	}
	return err
}

// readArgs reads args.cni.
func readArgs(v values) values {
	return inside(inside(v[keyArgs], argsTable)[argsCNI], cniTable)
}

// readConfig reads what describes the network.
func readConfig(p Plugin, v values) model.NetworkConfig {
	n := model.NetworkConfig{}
	v[keyBridge].String(&n.Bridge)
	v[keyIsGateway].Bool(&n.Gateway)
	v[keyIsDefaultGateway].Bool(&n.DefaultGateway)
	v[keyForceAddress].Bool(&n.ForceAddress)
	v[keyGwPriority].Int(&n.GatewayPriority)
	v[keyIPMasq].Bool(&n.Masquerade)
	v[keyHairpinMode].Bool(&n.Hairpin)
	v[keyPromiscMode].Bool(&n.Promiscuous)
	v[keyVLAN].Int(&n.VLAN)
	v[keyPreserveDefaultVLAN].Bool(&n.PreserveDefaultVLAN)
	v[keyMACSpoofChk].Bool(&n.SpoofCheck)
	v[keyEnableDAD].Bool(&n.EnableDAD)
	v[keyDisableContainerInterface].Bool(&n.InterfaceDown)
	v[keyPortIsolation].Bool(&n.Isolated)
	v[keyInternal].Bool(&n.Internal)
	icc := true
	v[keyICC].Bool(&icc)
	n.NoICC = !icc
	n.NoHairpin, n.MasqueradeAll = readClients(v)
	n.MTU, n.AutoMTU = readMTU(v[keyMTU])
	n.Backend = backendOf(v[keyBackend], v[keyIPMasqBackend])
	n.FastPath = readFastPath(v[keyFastPath])
	readGateway(v, &n)
	n.Gateway = n.Gateway || n.DefaultGateway
	if p == Bridge {
		n.Bridge = cmp.Or(n.Bridge, defaultBridge)
	}
	return n
}

// hasRate says that a limit of bandwidth is one. Of a wrong rate that plugin tells.
func hasRate(v jsonr.Value) bool {
	limits := v.Object()
	for _, key := range []string{"ingressRate", "egressRate"} {
		if raw := string(limits.At(key).Raw()); raw != "" && raw != "0" {
			return true
		}
	}
	return false
}

func readFastPath(v jsonr.Value) model.FastPath {
	var s string
	switch v.String(&s); s {
	case "", "off":
		return ""
	case string(model.FastPathAuto):
		return model.FastPathAuto
	}
	v.Refuse(`"auto" or "off"`)
	return ""
}

// readClients reads how the clients of published ports appear to the container.
func readClients(v values) (noHairpin, masqAll bool) {
	snat := true
	v[keySNAT].Bool(&snat)
	v[keyMasqAll].Bool(&masqAll)
	return !snat, masqAll && snat // as with the reference portmap plugin
}

// backendOf reads our key, in place of which the reference plugin has one for its only rules.
func backendOf(backend, masqBackend jsonr.Value) model.Backend {
	ours, masq := readBackend(backend), readBackend(masqBackend)
	if ours != "" && masq != "" && ours != masq {
		masqBackend.Refuse(fmt.Sprintf("%q as backend is, or only one of them", ours))
	}
	return cmp.Or(ours, masq)
}

// readMTU reads a number or "auto".
func readMTU(v jsonr.Value) (bytes int, auto bool) {
	raw := string(v.Raw())
	if raw == "" || raw == `"auto"` {
		return 0, raw != ""
	}
	bytes, err := strconv.Atoi(raw)
	if err != nil {
		v.Refuse(`"auto" or a whole number of bytes`)
	}
	return bytes, false
}

// readDNS returns what replaces the IPAM's DNS: nil if no key of it is there.
func readDNS(v jsonr.Value) *model.DNS {
	in := inside(v, dnsTable)
	d := model.DNS{Nameservers: in[dnsNameservers].Strings(), Search: in[dnsSearch].Strings(), Options: in[dnsOptions].Strings()}
	in[dnsDomain].String(&d.Domain)
	if d.Nameservers == nil && d.Domain == "" && d.Search == nil && d.Options == nil {
		return nil
	}
	return &d
}

// readMAC returns the address that the capability, args.cni or CNI_ARGS ask for, in this order
// of precedence; nil if none does.
func readMAC(capability, arg jsonr.Value, env string) (net.HardwareAddr, error) {
	var ofCapability, ofArg string
	capability.String(&ofCapability)
	arg.String(&ofArg)
	switch {
	case ofCapability != "":
		return model.ParseMAC(capability.Place(), ofCapability)
	case ofArg != "":
		return model.ParseMAC(arg.Place(), ofArg)
	case env != "":
		return model.ParseMAC("CNI_ARGS MAC", env)
	}
	return nil, nil
}

// readPriority returns the gateway priority for the container: that of the capability, of
// args.cni or of the network, in this order of precedence.
func readPriority(capability, arg, network jsonr.Value) (container int, err error) {
	for _, v := range []jsonr.Value{network, arg, capability} {
		v.Int(&container)
		if container < math.MinInt32 || container > math.MaxInt32 {
			return 0, badKey(v.Place(), strconv.Itoa(container), "want a whole number from -2147483648 to 2147483647")
		}
	}
	return container, nil
}

func readTrunk(v jsonr.Value) ([]model.VLANRange, error) {
	var all []model.VLANRange
	for _, item := range v.Items() {
		in := inside(item, trunkTable)
		lowest, highest, id := in[trunkMinID].OptionalInt(), in[trunkMaxID].OptionalInt(), in[trunkID].OptionalInt()
		if (lowest == nil) != (highest == nil) {
			return nil, badKey(item.Place(), "only one of minID and maxID", "want both, or id")
		}
		for _, ends := range [][2]*int{{lowest, highest}, {id, id}} {
			if ends[0] == nil {
				continue
			}
			r, err := vlanRange(item.Place(), *ends[0], *ends[1])
			if err != nil {
				return nil, err
			}
			all = append(all, r)
		}
	}
	return all, nil
}

func vlanRange(key string, lowest, highest int) (model.VLANRange, error) {
	if lowest < 1 || highest > 4094 || lowest > highest {
		return model.VLANRange{}, badKey(key, fmt.Sprintf("%d-%d", lowest, highest), "want IDs from 1 to 4094, minID not above maxID")
	}
	return model.VLANRange{Min: uint16(lowest), Max: uint16(highest)}, nil
}

// Cleanup is what DEL and GC need of a configuration of bridge-ln or overlay-ln. An
// unreadable key counts as missing.
type Cleanup struct {
	StateDir string
	Bridge   string // empty: none, or no name of a bridge
	Backend  model.Backend
	IPAMType string
	Pool     PoolCleanup
	Log      Log
}

// LooseNetwork reads what DEL and GC need of bridge-ln or overlay-ln.
func LooseNetwork(s Source) Cleanup {
	v := read(s.Conf.Apart(), table[:])
	c := Cleanup{
		StateDir: looseStateDir(v[keyStateDir]),
		Backend:  looseBackend(v[keyBackend], v[keyIPMasqBackend]),
		Pool:     LoosePool(s),
		Log:      LooseLog(s.Conf),
	}
	if name, _ := v[keyBridge].Text(); model.ValidBridgeName(name) {
		c.Bridge = name
	}
	c.IPAMType, _ = inside(v[keyIPAM], ipamTable)[ipamType].Text()
	return c
}
