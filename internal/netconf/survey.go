package netconf

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/plain"
)

// File is a file of a directory of configurations.
type File struct {
	Path    string
	Network string // its name; empty: the file has none
	// Err: it is no JSON, or, of a plugin of ours, a value is refused.
	Err error
	// Ours says that a plugin of ours is in it.
	Ours bool
	// Below says that it is a template, or has defaults: no network.
	Below bool
	// Template is the name of the template that it is; empty: of none.
	Template string
	// Templates are those that our plugins in it name.
	Templates []string
	// Plugins are the binaries that our plugins in it take: themselves and their IPAM.
	Plugins []string
	// Subnets of the pools of our plugins.
	Subnets []netip.Prefix
	Keys    []Finding // without effect, of our plugins
	// Strange are keys of our plugins that are no keys of theirs nor near one, and that no
	// runtime is known to write. They may be a vendor's.
	Strange []Finding
	// StateDirs are those of our plugins; empty: libnet's default.
	StateDirs []string
	// Networks are the plugins of ours that attach containers, as they are read.
	Networks []Member
}

// Member is bridge-ln or overlay-ln in a file.
type Member struct {
	*Network
	Plugin Plugin
	Source Source // as the file has it
	// Completed is that with what lies below it; nil: nothing does.
	Completed *Completed
}

// From says where a key has its value from: FromConf, "defaults", or "template NAME".
func (m Member) From(key string) string {
	if m.Completed == nil {
		return FromConf
	}
	return m.Completed.From(key)
}

// Conf is the configuration with what lies below it.
func (m Member) Conf() *jsonr.Object {
	if m.Completed == nil {
		return m.Source.Conf
	}
	return m.Completed.Conf
}

// ReadFile reads a configuration, or a file of what lies below configurations: defaults.json,
// or one in a directory templates. Err says why it could not be.
func ReadFile(path string) File {
	data, err := plain.ReadFile(path)
	if err != nil {
		return File{Path: path, Err: err}
	}
	if is, name := isBelow(path); is {
		return File{Path: path, Below: true, Template: name, Err: lintLayer(path, name, data)}
	}
	return ReadData(path, data)
}

// ReadData is ReadFile of data that the path stands for.
func ReadData(path string, data []byte) File {
	f := File{Path: path}
	f.Err = f.read(data)
	return f
}

// Files reads the configurations of a directory, in the order in which runtimes look at
// them. A directory that is missing has none.
func Files(dir string) []File {
	var all []File
	for _, path := range configurations(dir) {
		all = append(all, ReadFile(path))
	}
	return all
}

// configurations are the files of a directory that runtimes take for configurations.
func configurations(dir string) []string {
	var all []string
	for _, ext := range []string{"conf", "conflist", "json"} {
		more, _ := filepath.Glob(filepath.Join(dir, "*."+ext)) // the pattern is right
		all = append(all, more...)
	}
	slices.Sort(all)
	return all
}

func (f *File) read(data []byte) error {
	file, err := jsonr.Parse(data)
	if err != nil {
		return err
	}
	f.Network = nameOf(file)
	var errs []error
	for _, p := range []Plugin{Bridge, Overlay, Portmap} {
		for _, o := range ofType(file, p) {
			f.Ours = true
			if name, _ := TemplateOf(o); name != "" { // a bad one is in Err
				f.Templates = append(f.Templates, name)
			}
			f.StateDirs = append(f.StateDirs, looseStateDir(read(o.Apart(), table[:])[keyStateDir]))
			f.Keys = append(f.Keys, Unknown(o, p)...)
			f.Strange = append(f.Strange, strange(o, p)...)
			errs = append(errs, f.readPlugin(p, Source{Conf: o.Apart(), Network: f.Network}))
		}
	}
	if file.Has(table[keyPlugins].Name) {
		f.Keys = append(f.Keys, misspeltOf(file)...)
	}
	return errors.Join(errs...)
}

// misspeltOf finds keys of a list that were meant to be those of libcni.
func misspeltOf(list *jsonr.Object) []Finding {
	keys := []Key{table[keyCNIVersion], table[keyName], table[keyPlugins]}
	for _, name := range []string{"cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"} {
		keys = append(keys, Key{Name: name})
	}
	for i := range keys {
		keys[i].Of, keys[i].Inside = Bridge, nil
	}
	f := finder{plugin: Bridge}
	f.walk(list.Apart(), keys, false, false)
	for i, found := range f.found {
		if found.Right != "" {
			f.found[i].Why = "is no key of a list of plugins"
		}
	}
	for v := range list.Values() {
		i := find(table[:], v.Name(), false)
		if i >= 0 && (!table[i].CNI || i == keyIPAM) && find(keys, v.Name(), false) < 0 { // Podman writes args there
			f.add(v, "", "stands beside "+table[keyPlugins].Name+", where no plugin reads it")
		}
	}
	return f.found
}

func (f *File) readPlugin(p Plugin, s Source) error {
	f.add(p.String())
	if p == Portmap {
		publish, err := ReadPublish(s)
		if err != nil {
			return err
		}
		return publish.Config.Validate()
	}
	o, c, err := complete(p, s.Conf)
	if err != nil {
		return err
	}
	n, err := ReadNetwork(p, Source{Conf: o, Network: s.Network})
	if err == nil {
		f.Networks = append(f.Networks, Member{n, p, s, c})
		err = f.readMember(p, n)
	}
	if c != nil {
		err = c.Locate(err)
	}
	return err
}

func (f *File) readMember(p Plugin, n *Network) error {
	if n.IPAMType != "" {
		f.add(n.IPAMType)
	}
	if p == Overlay { // of which the hosts' parts complete the configuration
		f.Subnets = append(f.Subnets, n.Config.Tunnel.Subnets...)
		return nil
	}
	if n.Pool == nil || !n.Config.HasGateway() {
		return n.Config.Validate()
	}
	for _, set := range n.Pool.Config.Sets {
		for _, r := range set {
			if r.Subnet.IsValid() { // else it is to be chosen
				f.Subnets = append(f.Subnets, r.Subnet)
			}
		}
	}
	return n.Config.Validate()
}

func (f *File) add(binary string) {
	if !slices.Contains(f.Plugins, binary) {
		f.Plugins = append(f.Plugins, binary)
	}
}
