// Command floor makes one container's attachment with the kernel requests that
// every implementation needs, and nothing else: no addresses are chosen, nothing
// is recorded, checked or locked. The time that a plugin takes beyond it is its own.
//
//	floor add|del <netns> <number>
//
// It works in the network namespace it is started in, on the bridge and the
// nftables table of Setup. It prints the nanoseconds that all requests took and
// those of the veth alone.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) != 3 {
		_, _ = fmt.Fprintln(stderr, "usage: floor add|del <netns> <number>")
		return 2
	}
	number, err := strconv.Atoi(args[2])
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "floor:", err)
		return 2
	}
	verb := add
	if args[0] == "del" {
		verb = del
	}
	all, veth, err := verb(args[1], number)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "floor:", err)
		return 1
	}
	_, _ = fmt.Fprintln(stdout, all.Nanoseconds(), veth.Nanoseconds())
	return 0
}

// add makes rules, veth, address and default route.
func add(path string, number int) (all, veth time.Duration, err error) {
	start := time.Now()
	container, err := netns.GetFromPath(path)
	if err != nil {
		return 0, 0, err
	}
	host, err := openRoute(netns.None())
	if err != nil {
		return 0, 0, err
	}
	if err := putElements(number); err != nil {
		return 0, 0, err
	}
	bridge, err := host.index("floor0")
	if err != nil {
		return 0, 0, err
	}
	vethStart := time.Now()
	if err := host.createVeth(number, int(container), bridge); err != nil {
		return 0, 0, fmt.Errorf("veth: %w", err)
	}
	veth = time.Since(vethStart)
	port, err := host.index(hostName(number))
	if err != nil {
		return 0, 0, err
	}
	if err := host.up(port); err != nil {
		return 0, 0, fmt.Errorf("port up: %w", err)
	}
	if err := configure(container, number); err != nil {
		return 0, 0, err
	}
	return time.Since(start), veth, nil
}

// configure is what is done inside the container.
func configure(container netns.NsHandle, number int) error {
	inside, err := openRoute(container)
	if err != nil {
		return err
	}
	eth0, err := inside.index("eth0")
	if err != nil {
		return err
	}
	if err := inside.address(eth0, address(number)); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := inside.up(eth0); err != nil {
		return fmt.Errorf("container's end up: %w", err)
	}
	if err := inside.defaultRoute(eth0, address(gateway)); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	return nil
}

// del takes rules and veth away, in this order: the kernel frees the elements
// in the background, and a process that closes an nftables socket before that
// waits for it. Removing a veth takes longer than that.
func del(_ string, number int) (all, veth time.Duration, err error) {
	start := time.Now()
	host, err := openRoute(netns.None())
	if err != nil {
		return 0, 0, err
	}
	if err := deleteElements(number); err != nil {
		return 0, 0, err
	}
	vethStart := time.Now()
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(hostName(number))))
	if err := host.send(req); err != nil {
		return 0, 0, fmt.Errorf("veth: %w", err)
	}
	return time.Since(start), time.Since(vethStart), nil
}
