// Command plain does nothing, but links what every plugin links: see BenchmarkStart.
package main

import (
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink/nl"
)

func main() {
	if len(os.Args) > 1 { // never: it keeps the packages in the binary
		_, _ = net.ParseMAC(types.NewError(1, "", "").Msg)
		_ = nl.NewNetlinkRequest(0, 0)
	}
}
