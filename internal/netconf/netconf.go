// Package netconf holds every key of the plugins' configurations: how it is spelt and read.
// Reading is strict for ADD, CHECK and STATUS, and lenient for DEL and GC: a configuration that was
// edited after ADD must not keep them from their work (CNI specification 1.1.0, section 4, DEL).
//
// The table of keys (table.go, tableinside.go, tableipam.go) is the only place that spells them
// for plugins. It has a constant for each, by which the readers find the value, and Unknown finds by
// it what is misspelt. The compiler lays it out, and no start of a plugin makes it: keys inside others
// are a slice for that, since x[:] of an array would be made at each start.
//
// Package keydoc has the texts about the keys: type, default, meaning. No plugin links it.
// docs/configuration.md is written from both (make keys).
package netconf

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// Plugin is one of the plugins, or several as a set.
type Plugin uint8

// The plugins.
const (
	Bridge  Plugin = 1 << iota // bridge-ln
	Overlay                    // overlay-ln
	IPAM                       // ipam-ln
	Portmap                    // portmap-ln

	networks = Bridge | Overlay
)

// Plugins are all of them, in the order of the reference.
func Plugins() []Plugin { return []Plugin{Bridge, Overlay, IPAM, Portmap} }

// String names the plugins by their binaries: "bridge-ln, overlay-ln".
func (p Plugin) String() string {
	var all []string
	for i, name := range []string{"bridge-ln", "overlay-ln", "ipam-ln", "portmap-ln"} {
		if p&(1<<i) != 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ", ")
}

// poolType is the ipam.type that is read here; others are other plugins'.
const poolType = "ipam-ln"

// Source is a configuration with what a runtime says beside it.
type Source struct {
	Conf    *jsonr.Object
	Network string            // its name
	Args    map[string]string // CNI_ARGS; IP, MAC and names are looked at
	// Known, if not nil, returns the nodes of a list that has been read before, as it is
	// written, with what their blocks come from; nil: it is to be read. Of those it returns
	// this host alone may be needed.
	Known func(stateDir string, list ...[]byte) []model.Node
}

// values are what an object holds, by the constants of its section of the table.
type values []jsonr.Value

func read(o *jsonr.Object, section []Key) values {
	v := make(values, len(section))
	for i := range section {
		v[i] = o.At(section[i].Name)
	}
	return v
}

// inside reads the object under a key.
func inside(v jsonr.Value, section []Key) values { return read(v.Object(), section) }

func badKey(key, value, want string) error {
	return &model.ConfigError{Key: key, Value: value, Want: want}
}

// choice returns a value that must be one of those allowed; empty if it is missing or empty.
func choice[T ~string](v jsonr.Value, allowed ...T) T {
	var s string
	if v.String(&s); s == "" {
		return ""
	}
	return oneOf(v, allowed...)
}

// oneOf returns a value that must be one of those allowed; the first of them if it is missing.
func oneOf[T ~string](v jsonr.Value, allowed ...T) T {
	s := string(allowed[0])
	if v.String(&s); !slices.Contains(allowed, T(s)) {
		var want []string
		for _, a := range allowed {
			want = append(want, strconv.Quote(string(a)))
		}
		v.Refuse(strings.Join(want, " or "))
	}
	return T(s)
}

func readBackend(v jsonr.Value) model.Backend {
	return choice(v, model.BackendAuto, model.BackendNFTables, model.BackendIPTables)
}

// looseBackend is readBackend for the first value that names one; empty if none does.
func looseBackend(all ...jsonr.Value) model.Backend {
	for _, v := range all {
		s, _ := v.Text()
		switch b := model.Backend(s); b {
		case model.BackendAuto, model.BackendNFTables, model.BackendIPTables:
			return b
		}
	}
	return ""
}

// readStateDir returns the directory of the records; empty if the configuration names none. A
// relative one is refused: what it means depends on where the runtime was started.
func readStateDir(v jsonr.Value) string {
	var dir string
	v.String(&dir)
	if dir != "" && !isPlace(dir) {
		v.Refuse("an absolute path")
	}
	return dir
}

// LooseStateDir is the directory of the records as DEL and GC read it; empty: libnet's default.
func LooseStateDir(conf *jsonr.Object) string {
	return looseStateDir(conf.Apart().At(table[keyStateDir].Name))
}

// looseStateDir is empty for what readStateDir refuses.
func looseStateDir(v jsonr.Value) string {
	dir, _ := v.Text()
	if !isPlace(dir) {
		return ""
	}
	return dir
}

func isPlace(dir string) bool { return filepath.IsAbs(dir) && canBe(dir) }

// canBe says whether a path can be one (path_resolution(7)).
func canBe(path string) bool {
	if len(path) >= 4096-512 || strings.ContainsRune(path, 0) { // with what we put below it
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if len(name) > 255 {
			return false
		}
	}
	return true
}
