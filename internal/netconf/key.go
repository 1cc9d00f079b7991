package netconf

// Key is a key of a configuration, or of an object in it.
type Key struct {
	Name string
	Of   Plugin // that have it
	From Origin
	Type string // "boolean"
	// Default is what a missing key means, as JSON; empty: nothing.
	Default string
	// Does is its meaning, and Overlay what is different about it with overlay-ln.
	Does, Overlay string
	// Inside are the keys of the object, or of the objects in the list.
	Inside []Key
	// Exact says that libcni reads the keys inside, and takes no other spelling.
	Exact bool
	// Cleanup says that DEL and GC read it, too.
	Cleanup bool
}

// Origin says whose a key is. Those of reference plugins have their name, default and meaning.
type Origin string

// Origins of keys. The zero value is libnet.
const (
	fromCNI       Origin = "CNI"
	fromBridge    Origin = "bridge"
	fromHostLocal Origin = "host-local"
	fromPortmap   Origin = "portmap"
	fromFirewall  Origin = "firewall"
)

// Table returns the keys of a plugin's configuration with those inside. It is made anew.
func Table(p Plugin) []Key { return tableOf(p, table[:]) }

func tableOf(p Plugin, section []Key) (keys []Key) {
	for _, k := range section {
		if k.Of&p != 0 {
			k.Inside = tableOf(p, k.Inside)
			keys = append(keys, k)
		}
	}
	return keys
}
