package explain

import (
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/netconf/keydoc"
)

// Origin says where a value comes from; netconf has those of values that are given.
type Origin string

// The origins of values that are not.
const (
	fromDefault Origin = "default"
	implied     Origin = "gatewayMode"
)

// Key is a key of a configuration with the value that counts.
type Key struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  Origin `json:"from"`
}

// imply sets what the gateway mode has decided, where the configuration leaves it open.
func imply(keys []Key, c model.NetworkConfig) {
	masq := c.MasqueradeFamilies()
	for i, k := range keys {
		on, is := map[string]bool{"isGateway": c.HasGateway(), "isDefaultGateway": c.DefaultGateway, "ipMasq": masq.IPv4 || masq.IPv6}[k.Key]
		if is && on && k.From == fromDefault {
			keys[i].Value, keys[i].From = "true", implied
		} else if is && k.From == fromDefault {
			keys[i].Value = "false"
		}
	}
}

// keysOf lists the keys that a plugin's object has, and those that it lacks and whose
// default means something, by the table from which the plugin reads.
func keysOf(m netconf.Member) []Key { return within("", keydoc.Table(m.Plugin), m.Conf(), m.From) }

func within(at string, table []keydoc.Key, conf *jsonr.Object, from func(key string) string) (all []Key) {
	for _, k := range table {
		v := conf.At(k.Name)
		name := at + k.Name
		switch {
		case v.IsObject() && len(k.Inside) > 0:
			all = append(all, within(name+".", k.Inside, v.Object(), from)...)
		case !v.Missing():
			all = append(all, Key{name, strings.Join(strings.Fields(string(v.Raw())), " "), Origin(from(name))})
		case k.Default != "" && !k.CNI && at != "capabilities.": // of which the runtime makes runtimeConfig
			all = append(all, Key{name, k.Default, fromDefault})
		}
	}
	return all
}
