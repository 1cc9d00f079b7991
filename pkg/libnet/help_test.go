package libnet_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// addUplink makes what stands for the host's interface.
func addUplink(name string) (remove func()) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	check(netlink.LinkAdd(link), netlink.LinkSetUp(link), netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name + "p"}}))
	return func() { check(netlink.LinkDel(link)) }
}

// inside runs fn on a thread in the namespace at path.
func inside(path string, fn func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err == nil {
			err = fn()
		}
		errc <- err
	}()
	return <-errc
}

func defaultDevice(path string) (name string) {
	check(inside(path, func() error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		best := -1
		for _, r := range routes {
			if (r.Dst == nil || r.Dst.IP.IsUnspecified()) && (best < 0 || r.Priority < best) {
				link, linkErr := netlink.LinkByIndex(r.LinkIndex)
				if linkErr != nil {
					return linkErr
				}
				name, best = link.Attrs().Name, r.Priority
			}
		}
		return err
	}))
	return name
}

// linksIn returns the names of the links in a namespace, but lo.
func linksIn(t *testing.T, path string) (names []string) {
	t.Helper()
	err := inside(path, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Name != "lo" {
				names = append(names, l.Attrs().Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// leases returns the addresses that the directory of a pool, or of host-local, holds.
func leases(t *testing.T, dir, network string) (held []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, network))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Count(e.Name(), ".") == 3 {
			held = append(held, e.Name())
		}
	}
	return held
}

// world is a controller with directories of its own.
type world struct {
	*libnet.Controller
	state, data, netns string
	opts               []libnet.Option
}

func newWorld(t *testing.T, plugins ...string) *world {
	t.Helper()
	if plugins == nil {
		plugins = []string{os.Getenv("BIN"), os.Getenv("TOOLS")}
	}
	dir, err := os.MkdirTemp("/run", "world") // a tmpfs, as records need
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{state: dir + "/state", data: dir + "/data", netns: dir + "/netns"}
	w.opts = []libnet.Option{libnet.WithStateDir(w.state), libnet.WithDataDir(w.data), libnet.WithNetnsDir(w.netns), libnet.WithPluginPath(plugins...)}
	w.Controller, err = libnet.New(w.opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (w *world) sandbox(t *testing.T, id string) *libnet.Sandbox {
	t.Helper()
	sb, err := w.NewSandbox(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.DestroySandbox(t.Context(), id) })
	return sb
}

func ok(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// removeNetns has a namespace end, as a container does that ends without its runtime.
func removeNetns(path string) error {
	return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
}
