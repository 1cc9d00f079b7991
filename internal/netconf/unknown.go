package netconf

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
)

// Finding is a key without the effect that it was written for.
type Finding struct {
	Key   string // with its place, "ipam.rangestrat"
	Value string // as it was given
	Right string // the key that was meant, as it is spelt; empty: none
	Why   string // "is no key of bridge-ln"
}

// String says what is wrong, in a part of a line.
func (f Finding) String() string {
	if f.Right == "" {
		return f.Key + " " + f.Why
	}
	return fmt.Sprintf("%s %s, but %s is", f.Key, f.Why, f.Right)
}

// Unknown returns the keys of a configuration that have no effect and were meant to: those
// that differ little from a key of the plugin, those of another plugin of ours, and those that
// are there twice. Any other unknown key is a vendor's, and so are the keys that runtimes are
// known to write. Of ipam-ln only the ipam section counts: the rest is its caller's.
//
// The case of letters does not matter, but in capabilities, which libcni reads.
func Unknown(conf *jsonr.Object, p Plugin) []Finding {
	f := finder{plugin: p}
	conf = conf.Apart()
	if p == IPAM {
		f.walk(conf.At(table[keyIPAM].Name).Object(), ipamTable, false, true)
		return f.found
	}
	f.walk(conf, table[:], false, true)
	return f.found
}

// strange returns the keys of a configuration that are unknown, far from any key, and of no
// runtime that is known.
func strange(conf *jsonr.Object, p Plugin) []Finding {
	f := finder{plugin: p, strangers: true}
	f.walk(conf.Apart(), table[:], false, true)
	return f.strange
}

// The findings of one configuration, and the comparisons made for it, have a bound: it may
// hold a million keys.
const (
	mostFindings = 8
	mostUnknown  = 1000
)

type finder struct {
	plugin  Plugin
	found   []Finding
	unknown int
	// strangers says to keep unknown keys without a near one, too.
	strangers bool
	strange   []Finding
	// all says that no key is a vendor's.
	all bool
}

// walk looks at the keys of an object. others says to find keys of other plugins, too: runtimes
// write what several plugins share.
func (f *finder) walk(o *jsonr.Object, section []Key, exact, others bool) {
	var seen [keyCount]bool
	for v := range o.Values() {
		i := find(section, v.Name(), exact)
		switch {
		case len(f.found) == mostFindings || f.unknown == mostUnknown:
			return
		case i < 0:
			f.unknown++
			f.miss(v, section)
		case seen[i]:
			f.add(v, "", "is there twice, if only in another case: the one spelt "+section[i].Name+" counts, else the last")
		case section[i].Of&f.plugin != 0:
			f.descend(v, &section[i])
		case others && !section[i].CNI:
			f.add(v, "", fmt.Sprintf("is no key of %s: it is one of %s", f.plugin, section[i].Of))
		}
		if i >= 0 {
			seen[i] = true
		}
	}
}

// find returns the place of a key in its section; -1 if it is not there.
func find(section []Key, name string, exact bool) int {
	for i := range section {
		k := &section[i]
		if len(k.Name) == len(name) && (k.Name == name || !exact && strings.EqualFold(k.Name, name)) {
			return i
		}
	}
	return -1
}

// descend looks at the keys inside a value: of an object, or of those in a list.
func (f *finder) descend(v jsonr.Value, k *Key) {
	switch {
	case len(k.Inside) == 0:
	case v.IsObject():
		o := v.Object()
		if k.Name == table[keyIPAM].Name && f.foreign(o) {
			return
		}
		f.walk(o, k.Inside, k.Exact, k.Name == table[keyIPAM].Name)
	case v.IsList() && bytes.IndexByte(v.Raw(), '{') >= 0: // of a thousand addresses none has keys
		for _, item := range v.Items() {
			f.descend(item, k)
		}
	}
}

// foreign says that an ipam section is another plugin's, with keys of its own.
func (f *finder) foreign(ipam *jsonr.Object) bool {
	var kind string
	ipam.String(ipamTable[ipamType].Name, &kind)
	return f.plugin != Overlay && kind != poolType
}

// miss finds the key that an unknown one was meant to be.
func (f *finder) miss(v jsonr.Value, section []Key) {
	name := v.Name()
	if !f.all && (slices.Contains(vendorKeys, name) || strings.ContainsAny(name, "./")) {
		return
	}
	best, least, spelt := "", 0, spell(name)
	for _, k := range section {
		if k.Of&f.plugin == 0 {
			continue
		}
		if d, near := spelt.differ(k.Name); near && (best == "" || d < least) {
			best, least = k.Name, d
		}
	}
	if best != "" {
		f.add(v, best, "is no key of "+f.plugin.String())
	} else if f.strangers && len(f.strange) < mostFindings {
		f.strange = append(f.strange, f.finding(v, "", "is no key of "+f.plugin.String()))
	}
}

func (f *finder) add(v jsonr.Value, right, why string) {
	f.found = append(f.found, f.finding(v, right, why))
}

func (*finder) finding(v jsonr.Value, right, why string) Finding {
	key := v.Place()
	if right != "" {
		right = strings.TrimSuffix(key, v.Name()) + right
	}
	if !isPrintable(key) { // it becomes a part of a line
		key = strconv.Quote(key)
	}
	return Finding{Key: key, Value: string(v.Raw()), Right: right, Why: why}
}

// Check returns what Unknown found as a line for the operator, empty for none; or, if the
// configuration says "strict": true, as an error of which the first key is the one named.
func Check(conf *jsonr.Object, p Plugin) (line string, err error) {
	found := Unknown(conf, p)
	if len(found) == 0 {
		return "", nil
	}
	var texts []string
	strict := isStrict(conf.At(table[keyStrict].Name)) && p != IPAM
	ofIPAM := isStrict(inside(conf.Apart().At(table[keyIPAM].Name), ipamTable)[ipamStrict])
	for _, f := range found {
		if strict || ofIPAM && strings.HasPrefix(f.Key, table[keyIPAM].Name+".") {
			return "", f.refusal()
		}
		texts = append(texts, f.String())
	}
	return strings.Join(texts, "; ") + `; with "strict": true this is an error`, nil
}

func isStrict(v jsonr.Value) bool { return string(v.Raw()) == "true" }

func (f Finding) refusal() error {
	const most = 80
	value := f.Value
	if len(value) > most {
		value = value[:most] + "…"
	}
	want := "this " + f.Why
	if f.Right != "" {
		want = "want " + f.Right + ": " + want
	}
	return badKey(f.Key, value, want)
}

// vendorKeys are written by runtimes and by programs that call plugins, into the configuration
// of any plugin: they are never taken for ours misspelt.
var vendorKeys = []string{
	// lists of libcni, which a file for one plugin may have, too
	"cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins",
	// runtimeConfig of containerd, CRI-O, Podman and Multus; with slashes and dots: pod annotations
	"bandwidth", "dns", "aliases", "cgroupPath", "infinibandGUID", "deviceID",
	// args, of Podman
	"podman_labels", "podman_options",
	// nerdctl
	"nerdctlID", "nerdctlLabels",
	// Multus and the device plugins of Kubernetes
	"resourceName", "pciBusID", "delegates", "delegate", "kubeconfig", "clusterNetwork", "defaultNetworks",
	"logFile", "logLevel", "logToStderr", "logOptions", "confDir", "cniDir", "binDir", "cniConfigDir", "namespaceIsolation", "globalNamespaces",
	// flannel
	"subnetFile", "dataDir",
}
