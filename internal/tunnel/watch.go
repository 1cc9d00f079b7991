package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Watcher tells of changes in the network namespace of the thread that opened
// it. It is for one goroutine.
type Watcher struct {
	file   *os.File
	conn   *netlink.Conn
	prefix string       // of the names of links that are looked after
	ours   map[int]bool // links by index, as far as they were asked for
}

// watchBuffer holds what comes while a thousand entries are written.
const watchBuffer = 1 << 20

// Watch begins to watch what tunnels, links whose name starts with prefix,
// depend on: the links but the ports of bridges, addresses, routes, and the
// neighbours and forwarding entries of the tunnels themselves.
func Watch(prefix string) (*Watcher, error) {
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) // less only means that more is lost, which is told
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		c.Close()
		_ = unix.Close(fd) // -1, which is refused, if there was no socket
		return nil, fmt.Errorf("subscribe to netlink events: %w", err)
	}
	return &Watcher{os.NewFile(uintptr(fd), "rtnetlink"), c, prefix, map[int]bool{}}, nil
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.conn.Close()
	_ = w.file.Close()
}

// Run calls changed after each change, until ctx ends. That events were lost is
// a change, too.
func (w *Watcher) Run(ctx context.Context, changed func()) error {
	defer context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, netlink.ReceiveSize)
	for {
		n, err := w.file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			changed()
			continue
		case err != nil:
			return fmt.Errorf("receive netlink events: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("netlink events: %w", err)
		}
		for _, m := range msgs {
			if w.matters(m) {
				changed()
				break
			}
		}
	}
}

// matters says whether an event may concern a tunnel. All of a batch are looked
// at only as far as the first that does.
func (w *Watcher) matters(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		d, err := netlink.ParseDevice(m.Data)
		if err != nil {
			return true
		}
		delete(w.ours, d.Index) // it may have another name now, and its number may go to another link
		return d.Master == 0 || strings.HasPrefix(d.Name, w.prefix)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return len(m.Data) < netlink.NdmsgSize || w.isOurs(netlink.Number(m.Data[4:8]))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(m.Data) < unix.SizeofRtMsg || binary.NativeEndian.Uint32(m.Data[8:])&unix.RTM_F_CLONED == 0
	}
	return true
}

func (w *Watcher) isOurs(index int) bool {
	ours, known := w.ours[index]
	if !known {
		d, err := w.conn.ReadDevice(&nl.IfInfomsg{IfInfomsg: unix.IfInfomsg{Index: int32(index)}})
		if err != nil {
			return false // a link that is gone was told of
		}
		ours = strings.HasPrefix(d.Name, w.prefix)
		w.ours[index] = ours
	}
	return ours
}
