// Command overlay-ln is a CNI plugin: it connects containers of several hosts by
// Linux bridges and VXLAN. Its keys are those of bridge-ln, and some more;
// docs/configuration.md lists them.
package main

import (
	"os"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// version is set by the linker (see the Makefile).
var version = "v0.0.0-dev"

func main() {
	os.Exit(plugin.Overlay(version).Run(os.Getenv, cni.Standard()))
}
