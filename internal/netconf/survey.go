package netconf

import (
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
	// Plugins are the binaries that our plugins in it take: themselves and their IPAM.
	Plugins []string
	// Subnets of the pools of our plugins.
	Subnets []netip.Prefix
	Keys    []Finding // without effect, of our plugins
}

// Files reads the configurations of a directory, in the order in which runtimes look at
// them. A directory that is missing has none.
func Files(dir string) []File {
	var all []File
	for _, path := range configurations(dir) {
		f := File{Path: path}
		data, err := plain.ReadFile(path)
		if err == nil {
			err = f.read(data)
		}
		f.Err = err
		all = append(all, f)
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
	for _, p := range []Plugin{Bridge, Overlay, Portmap} {
		for _, o := range ofType(file, p) {
			f.Ours = true
			f.Keys = append(f.Keys, Unknown(o, p)...)
			if err := f.readPlugin(p, Source{Conf: o.Apart(), Network: f.Network}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *File) readPlugin(p Plugin, s Source) error {
	f.add(p.String())
	if p == Portmap {
		_, err := ReadPublish(s)
		return err
	}
	n, err := ReadNetwork(p, s)
	if err != nil {
		return err
	}
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
