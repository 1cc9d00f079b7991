package netconf

// Key is a key of a configuration, or of an object in it: what plugins know of it. Package keydoc
// has the text about it.
type Key struct {
	Name string
	Of   Plugin // that have it
	// CNI says that the key is one of the specification or of its conventions.
	CNI bool
	// Exact says that libcni reads the keys inside, and takes no other spelling.
	Exact bool
	// Cleanup says that DEL and GC read it, too.
	Cleanup bool
	// Inside are the keys of the object, or of the objects in the list.
	Inside []Key
}

// Table returns the keys of a plugin's configuration with those inside; of a set of plugins, those
// that any of them has. It is made anew.
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
