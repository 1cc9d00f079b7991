// Command portmap-ln is a CNI plugin: it publishes ports of the host for a
// container whose interface another plugin made. Its keys are those of the
// reference portmap plugin, and some more; README.md lists them.
package main

import (
	"os"

	"github.com/libnet-cni/libnet/internal/cni"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(plugin().Run(os.Getenv, cni.Standard()))
}

func plugin() cni.Plugin {
	return cni.Plugin{
		Name: "portmap-ln", Version: version,
		Add: add, Check: check, Del: del, GC: collect, Status: status,
	}
}
