// Package bridge is the driver of networks of one host: a Linux bridge, made by
// internal/engine.
package bridge

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// Name of the driver.
const Name = "bridge"

// Capability of the driver.
func Capability() driver.Capability { return driver.Capability{Scope: driver.Local} }

// targets are the options by their keys, which are those of the plugin bridge-ln, and
// the fields of a configuration that they set.
func targets(c *model.NetworkConfig) map[string]any {
	return map[string]any{
		"bridge": &c.Bridge, "mtu": &c.MTU, "vlan": &c.VLAN, "forceAddress": &c.ForceAddress, "hairpinMode": &c.Hairpin,
		"promiscMode": &c.Promiscuous, "macspoofchk": &c.SpoofCheck, "enabledad": &c.EnableDAD, "portIsolation": &c.Isolated,
		"snatIPv4": &c.SNATIPv4, "snatIPv6": &c.SNATIPv6, "trustedInterfaces": &c.TrustedInterfaces, "backend": &c.Backend,
		"ingressPolicy": &c.IngressPolicy, "fastPath": &c.FastPath,
	}
}

// Configure sets what the options say. The error is a *model.ConfigError that names
// the key, and for one that is not an option those that are.
func Configure(c *model.NetworkConfig, options map[string]any) error {
	return Set(targets(c), Name, options)
}

// Set gives each target the value of its option.
func Set(targets map[string]any, driverName string, options map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		target, ok := targets[key]
		if !ok {
			known := strings.Join(slices.Sorted(maps.Keys(targets)), ", ")
			return model.BadConfig(key, options[key], "is no option of the driver "+driverName+", which has "+known)
		}
		data, err := json.Marshal(options[key])
		if err == nil {
			err = json.Unmarshal(data, target)
		}
		if err != nil {
			return model.BadConfig(key, options[key], "want another type of value: "+err.Error())
		}
	}
	return nil
}
