// Package overlay is the driver of networks that span hosts: a bridge on each host,
// joined by VXLAN or WireGuard, made by internal/engine.
package overlay

import (
	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/bridge"
	"github.com/libnet-cni/libnet/internal/model"
)

// Name of the driver.
const Name = "overlay"

// Capability of the driver.
func Capability() driver.Capability { return driver.Capability{Scope: driver.Global} }

// Configure sets what the options say, whose keys are those of the plugin overlay-ln.
// The error is a *model.ConfigError, as in package bridge.
func Configure(c *model.NetworkConfig, options map[string]any) error {
	return bridge.Set(map[string]any{
		"bridge": &c.Bridge, "mtu": &c.MTU, "hairpinMode": &c.Hairpin, "macspoofchk": &c.SpoofCheck, "enabledad": &c.EnableDAD,
		"trustedInterfaces": &c.TrustedInterfaces, "ingressPolicy": &c.IngressPolicy, "fastPath": &c.FastPath,
		"vni": &c.Tunnel.VNI, "port": &c.Tunnel.Port, "device": &c.Tunnel.Device, "isolated": &c.NoHost,
		"encryption": &c.Tunnel.Encryption, "privateKeyFile": &c.Tunnel.PrivateKeyFile,
	}, Name, options)
}
