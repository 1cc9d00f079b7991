package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Configured returns the configuration of a network as the files of a directory
// have it, *.conf, *.conflist and *.json, the first by name; false if none names
// it. Of several plugins in a list the one of ours counts. A directory that is
// missing has none. A file that cannot be read is an error unless another one
// names the network.
func Configured(dir, network string) (cfg model.NetworkConfig, found bool, err error) {
	var names []string
	for _, ext := range []string{"conf", "conflist", "json"} {
		more, _ := filepath.Glob(filepath.Join(dir, "*."+ext)) // the pattern is right
		names = append(names, more...)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		data, err := plain.ReadFile(name)
		if err == nil {
			cfg, found, err = configured(data, network)
		}
		if found && err == nil {
			return cfg, true, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return model.NetworkConfig{}, false, errors.Join(errs...)
}

func configured(data []byte, network string) (model.NetworkConfig, bool, error) {
	o, err := cni.ParseObject(data)
	if err != nil {
		return model.NetworkConfig{}, false, err
	}
	var name string
	if o.String("name", &name); name != network {
		return model.NetworkConfig{}, false, nil
	}
	plugins := []*cni.Object{o}
	if o.Has("plugins") {
		plugins = nil
		for _, item := range o.List("plugins") {
			plugins = append(plugins, item.Object())
		}
	}
	for _, p := range plugins {
		var kind string
		if p.String("type", &kind); kind != "bridge-ln" { // of overlay-ln the hosts are not in the file alone
			continue
		}
		cfg := readNetwork(p)
		cfg.Bridge = cmp.Or(cfg.Bridge, bridge.bridge)
		if cfg.VLANTrunk, err = readTrunk(p); err != nil {
			return cfg, false, err
		}
		return cfg, true, o.Err()
	}
	return model.NetworkConfig{}, false, o.Err()
}
