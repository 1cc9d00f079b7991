// Package wggo runs wireguard-go in this process, for kernels without WireGuard. What the
// device is to do plugins tell it by its socket, as package wireguard does.
package wggo

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// firstMTU is that of a new device, in bytes; a plugin sets the right one.
const firstMTU = 1420

// Device is a TUN device that wireguard-go has. It goes when the process ends.
type Device struct {
	dev    *device.Device
	listen net.Listener
	lock   *os.File
}

// Start makes the device in the network namespace of this process, sets it up, and answers
// at the socket. It has no key and no peer: nothing gets in or out. An error says that
// another process has the device, or that there is no /dev/net/tun.
func Start(name, socket string, log *slog.Logger) (*Device, error) {
	d := &Device{}
	err := d.start(name, socket, log)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("wireguard-go for %s: %w", name, err)
	}
	go d.serve()
	return d, nil
}

// start listens at the socket before there is a device: a plugin that finds the device is
// answered.
func (d *Device) start(name, socket string, log *slog.Logger) (err error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	if d.lock, err = lockFile(socket + ".lock"); err != nil {
		return err
	}
	if d.listen, err = listenAt(socket); err != nil {
		return err
	}
	t, err := newTUN(name)
	if err != nil {
		return fmt.Errorf("make the TUN device: %w", err)
	}
	d.dev = device.NewDevice(mangled{t}, conn.NewDefaultBind(), &device.Logger{
		Verbosef: func(string, ...any) {},
		Errorf:   func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...), "device", name) },
	})
	return d.dev.Up()
}

// newTUN makes a TUN device that is up before wireguard-go watches it. Of one that it has seen
// down it would close the UDP port again, for up to a second and at any time after Up; and
// while there is no port it could not say that another program has the one it is told.
func newTUN(name string) (tun.Device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	if err := errors.Join(attach(fd, name), setUp(name)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	t, err := tun.CreateTUNFromFile(f, firstMTU)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// attach makes the link that fd reads and writes, as tun.CreateTUN does.
func attach(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

// lockFile holds a file as long as it is open; an error says that another process does.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	switch ok, err := flock.Try(int(f.Fd()), unix.LOCK_EX); {
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	case !ok:
		return nil, errors.Join(fmt.Errorf("another process has the device: it holds %s", path), f.Close())
	}
	return f, nil
}

// setUp sets the link up.
func setUp(name string) error {
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := c.Device(name)
	if err != nil {
		return err
	}
	return c.SetLink(d.Index, unix.IFF_UP, unix.IFF_UP)
}

// listenAt listens at a socket that only root reaches. One that is there is of a process that
// has ended: the lock is ours.
func listenAt(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (d *Device) serve() {
	for {
		c, err := d.listen.Accept()
		if err != nil {
			return
		}
		go d.dev.IpcHandle(c) // closes it
	}
}

// Done is closed when the device is gone, by Close or because the link was deleted.
func (d *Device) Done() <-chan struct{} { return d.dev.Wait() }

// Close takes the device away.
func (d *Device) Close() {
	if d.dev != nil {
		d.dev.Close()
	}
	if d.listen != nil {
		_ = d.listen.Close() // removes the socket
	}
	if d.lock != nil {
		_ = d.lock.Close()
	}
}
