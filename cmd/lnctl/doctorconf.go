package main

import (
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// confFindings looks for keys that have no effect in the configurations of a directory:
// misspelt ones, those of another plugin, and those that are there twice.
func confFindings(dir string) []finding {
	const about = "configurations"
	found, plugins, err := netconf.UnknownIn(dir)
	var all []finding
	for _, f := range found {
		var keys []string
		for _, k := range f.Found {
			keys = append(keys, k.String())
		}
		all = append(all, finding{
			About: about, Found: fmt.Sprintf("%s, network %q, %s: %s", f.File, f.Network, f.Plugin, strings.Join(keys, "; ")),
			Advice: "correct the key or take it out: it has no effect (docs/configuration.md has all keys)",
		})
	}
	if err != nil {
		all = append(all, finding{About: about, Found: strings.ReplaceAll(err.Error(), "\n", "; "), Advice: "correct the file: runtimes cannot read it either"})
	}
	if len(all) == 0 {
		all = []finding{{About: about, OK: true, Found: fmt.Sprintf("%d of plugins of ours in %s, no key without effect", plugins, dir)}}
	}
	return all
}
