package netconf

import (
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// readGateway reads which clients outside reach the containers, and how these appear there.
func readGateway(v values, n *model.NetworkConfig) {
	n.GatewayModeIPv4, n.GatewayModeIPv6 = readMode(v[keyGatewayMode])
	if v[keyIsGateway].Missing() && v[keyIsDefaultGateway].Missing() {
		n.DefaultGateway = leadsOut(n.GatewayModeIPv4) || leadsOut(n.GatewayModeIPv6)
	}
	n.NoMasquerade = !v[keyIPMasq].Missing() && !n.Masquerade
	n.SNATIPv4, n.SNATIPv6 = v[keySNATIPv4].Addr(), v[keySNATIPv6].Addr()
	n.TrustedInterfaces = v[keyTrustedInterfaces].Strings()
	n.AcceptFwMark = readMark(v[keyAcceptFwMark])
	n.IngressPolicy = choice(v[keyIngressPolicy], model.IngressOpen, model.IngressSameBridge, model.IngressIsolated)
}

// readMode reads one mode for both families, or an object with one for each.
func readMode(v jsonr.Value) (v4, v6 model.GatewayMode) {
	mode := func(v jsonr.Value) model.GatewayMode {
		return choice(v, model.GatewayNAT, model.GatewayNATUnprotected, model.GatewayRouted, model.GatewayIsolated)
	}
	if !v.IsObject() {
		both := mode(v)
		return both, both
	}
	families := v.Object()
	if !families.Has(modeTable[modeIPv4].Name) && !families.Has(modeTable[modeIPv6].Name) { // misspelt, it would leave the network open
		v.Refuse(`a mode, or one for a family as {"ipv4": "nat", "ipv6": "routed"}`)
	}
	in := read(families, modeTable)
	return mode(in[modeIPv4]), mode(in[modeIPv6])
}

// leadsOut says that a mode is of use to containers with a default route only.
func leadsOut(m model.GatewayMode) bool {
	return m != model.GatewayOpen && m != model.GatewayIsolated
}

// readMark reads a packet mark as iptables writes it, "0x1" or "0x1/0xff", or a number.
func readMark(v jsonr.Value) model.FwMark {
	text, quoted := v.Text()
	if !quoted {
		text = string(v.Raw())
	}
	if text == "" {
		return model.FwMark{}
	}
	value, mask, masked := strings.Cut(text, "/")
	if !masked {
		mask = "0xffffffff"
	}
	number, err := strconv.ParseUint(value, 0, 32)
	m, maskErr := strconv.ParseUint(mask, 0, 32)
	if err != nil || maskErr != nil {
		v.Refuse(`a mark of 32 bits as "0x1", or with a mask as "0x1/0xff"`)
	}
	return model.FwMark{Value: uint32(number), Mask: uint32(m)}
}
