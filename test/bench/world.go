package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// world is what looks like a machine of its own to one chain of plugins: a
// network namespace, and a mount namespace with an empty /run and /var/lib.
// A chain does not meet the leftovers of another one.
type world struct{ net, mounts *os.File }

// newWorld makes a world with lo up.
func newWorld() (*world, error) {
	var w world
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := prepare(); err != nil {
			return err
		}
		if w.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		w.mounts, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return &w, err
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
	// Pins go with the namespaces. Without BPF there is no such place.
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return errors.Join(setUp("lo"), os.MkdirAll(netnsDir, 0o755))
}

// do runs fn, and what it starts, in the world.
func (w *world) do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // a mount namespace is for a thread that shares no root
			return err
		}
		if err := unix.Setns(int(w.mounts.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Setns(int(w.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// enter runs fn in the network namespace at path, which is one of the world.
func (w *world) enter(path string, fn func() error) error {
	return w.do(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = ns.Close() }()
		return inNS(ns, fn)
	})
}

// close lets go of the world; the kernel takes it down with all that is in it.
func (w *world) close() error { return errors.Join(w.net.Close(), w.mounts.Close()) }

// closeAll closes worlds and waits until they are gone.
func closeAll(worlds []*world) error {
	var errs []error
	for _, w := range worlds {
		errs = append(errs, w.close())
	}
	return errors.Join(append(errs, settle())...)
}

// onThread runs fn on a thread that is thrown away afterwards.
func onThread(fn func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		errc <- fn()
	}()
	return <-errc
}

const netnsDir = "/run/netns"

// newNetns makes a network namespace with lo up that the calling thread's world
// has under the name.
func newNetns(name string) (path string, err error) {
	path = filepath.Join(netnsDir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	return path, andBack(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return errors.Join(unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""), setUp("lo"))
	})
}

// inNS runs fn on the calling thread in another network namespace.
func inNS(ns *os.File, fn func() error) error {
	return andBack(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// andBack runs fn and then returns the calling thread, which its goroutine
// holds locked, to its network namespace.
func andBack(fn func() error) (err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNET), home.Close())
	}()
	return fn()
}

// setUp brings up a link of the calling thread's namespace.
func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

// settle waits until the kernel has removed the namespaces without a holder,
// because it would do so beside what is measured next. It removes them in turn:
// one that is released now is the last.
func settle() error {
	const name, limit = "bench-settle", time.Minute
	updates, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer", PeerNamespace: netlink.NsFd(w.net.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := w.close(); err != nil {
		return err
	}
	for timeout := time.After(limit); ; {
		select {
		case u := <-updates:
			if u.Header.Type == unix.RTM_DELLINK && u.Attrs().Name == name {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("namespaces that were let go of are still there after %s", limit)
		}
	}
}

// makeBridge makes a bridge with an address in the calling thread's namespace.
func makeBridge(name, address string) error {
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return errors.Join(addAddress(name, address), setUp(name))
}

func addAddress(link, address string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, addr)
}
