// Command portmap-ln is a CNI plugin: it publishes ports of the host for a
// container whose interface another plugin made. Its keys are those of the
// reference portmap plugin, and some more; docs/configuration.md lists them.
package main

import (
	"os"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(program().Run(os.Getenv, cni.Standard()))
}

func program() cni.Plugin {
	return cni.Plugin{
		Name: "portmap-ln", Version: version, Observe: plugin.Observe(netconf.Portmap, version), Vet: plugin.Vet(netconf.Portmap),
		Add: add, Check: check, Del: del, GC: collect, Status: status,
	}
}
