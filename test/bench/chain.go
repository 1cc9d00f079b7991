package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// chain is one plugin with its configuration and the times it took.
type chain struct {
	name, binary, conf string
	add, del           durations
}

type durations []time.Duration

// percentile returns the p-th percentile, nearest rank.
func (d durations) percentile(p int) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[(len(sorted)*p+99)/100-1]
}

// family is what a chain gives a container: one address of each range set, and
// the default routes.
type family struct{ name, ranges, routes string }

var families = []family{
	{"IPv4", `[[{"subnet":"10.61.0.0/16"}]]`, `[{"dst":"0.0.0.0/0"}]`},
	{"IPv4 and IPv6", `[[{"subnet":"10.62.0.0/16"}],[{"subnet":"fd62::/64"}]]`, `[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`},
}

// bare are ours and the reference's chain of a bridge and addresses, without
// masquerade. Each works on a bridge of its own, in a subnet of its own.
func bare(f family, n int) []*chain {
	var pair []*chain
	for i, p := range [][3]string{{"ours", "bridge-ln", "ipam-ln"}, {"reference", "bridge", "host-local"}} {
		subnets := strings.NewReplacer("10.6", fmt.Sprintf("10.%d", 10+i), "fd6", fmt.Sprintf("fd%d", 1+i)).Replace(f.ranges)
		conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench-%s-%d","type":%q,"bridge":"br-%d-%d","isGateway":true,
			"ipam":{"type":%q,"ranges":%s,"routes":%s}}`, p[0], n, p[1], n, i, p[2], subnets, f.routes)
		pair = append(pair, &chain{name: p[0], binary: binary(p[0], p[1]), conf: conf})
	}
	return pair
}

// binary is where the plugin lies: name is "ours" or anything else.
func binary(name, plugin string) string {
	if name == "ours" {
		return filepath.Join(os.Getenv("BIN"), plugin)
	}
	return filepath.Join(os.Getenv("TOOLS"), plugin)
}

// batch is how many containers exist when a batch is complete: about as many as
// a kubelet lets a node have.
const batch = 100

// runBatch adds a batch of containers to each chain, in turn, and deletes them
// again, in turn. Namespaces are made before and removed after, since the
// kernel's own work on them would be taken for the plugins'.
func runBatch(chains []*chain, number int) error {
	type container struct {
		*chain
		id, netns string
	}
	var all []container
	for i := range batch {
		for _, c := range chains {
			id := fmt.Sprintf("bench-%s-%d-%d", c.name, number, i)
			all = append(all, container{c, id, filepath.Join("/run/netns", id)})
			if err := newNetns(filepath.Join("/run/netns", id)); err != nil {
				return err
			}
		}
	}
	for _, c := range all {
		took, err := c.call("ADD", c.id, c.netns)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.add = append(c.add, took)
	}
	for _, c := range all {
		took, err := c.call("DEL", c.id, c.netns)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.del = append(c.del, took)
	}
	for _, c := range all {
		if err := unix.Unmount(c.netns, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}

// call runs the plugin once and returns how long the process took.
func (c *chain) call(command, id, netns string) (time.Duration, error) {
	took, stdout, err := c.run(command, id, netns)
	if err != nil {
		return took, fmt.Errorf("%s: %w: %s", command, err, stdout)
	}
	return took, nil
}

// run is call for those who want the output, too.
func (c *chain) run(command, id, netns string) (time.Duration, []byte, error) {
	var stdout bytes.Buffer
	cmd := exec.Command(c.binary)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0",
		"CNI_PATH=" + os.Getenv("BIN") + ":" + os.Getenv("TOOLS"), "PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdin, cmd.Stdout = bytes.NewReader([]byte(c.conf)), &stdout
	start := time.Now()
	err := cmd.Run()
	return time.Since(start), stdout.Bytes(), err
}

// prepare empties what the plugins write to and brings lo up.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return os.MkdirAll("/run/netns", 0o755)
}

// newNetns makes a network namespace bound to path.
func newNetns(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			errc <- err
			return
		}
		errc <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	return <-errc
}
