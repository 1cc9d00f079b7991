// Command bridge-ln is a CNI plugin: it connects containers of one host by a
// Linux bridge. Its keys are those of the reference bridge plugin, and some
// more; docs/configuration.md lists them.
package main

import (
	"os"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(plugin.Bridge(version).Run(os.Getenv, cni.Standard()))
}
