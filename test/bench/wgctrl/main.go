// Command wgctrl is command plain, and links besides what a plugin would need to talk to WireGuard
// by wgctrl: see BenchmarkStart.
package main

import (
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink/nl"
	"golang.zx2c4.com/wireguard/wgctrl"
)

func main() {
	if len(os.Args) > 1 { // never: it keeps the package in the binary
		_, _ = net.ParseMAC(types.NewError(1, "", "").Msg)
		_ = nl.NewNetlinkRequest(0, 0)
		_, _ = wgctrl.New()
	}
}
