package tunnel

import (
	"context"
	"encoding/binary"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Watcher tells of changes in the network namespace of the thread that opened
// it. It is for one goroutine.
type Watcher struct {
	events *netlink.Subscription
	conn   *netlink.Conn
	prefix string       // of the names of links that are looked after
	ours   map[int]bool // links by index, as far as they were asked for
}

// watchBuffer holds what comes while a thousand entries are written.
const watchBuffer = 1 << 20

// Watch begins to watch what tunnels, links whose name starts with prefix,
// depend on: the links but the ports of bridges, addresses, routes, the neighbours
// and forwarding entries of the tunnels themselves, and that the host and its links forward.
func Watch(prefix string) (*Watcher, error) {
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | 1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	events, err := netlink.Subscribe("netlink", unix.NETLINK_ROUTE, groups, watchBuffer)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &Watcher{events, c, prefix, map[int]bool{}}, nil
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.conn.Close()
	w.events.Close()
}

// Run calls changed after each change, until ctx ends. That events were lost is
// a change, too.
func (w *Watcher) Run(ctx context.Context, changed func()) error {
	return w.events.Run(ctx, w.matters, changed)
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
	case unix.RTM_NEWNETCONF:
		return forwardsNoMore(m.Data)
	case unix.RTM_DELNETCONF: // of a link that goes, which is told of
		return false
	}
	return true
}

// forwardsNoMore says that a struct netconfmsg with its attributes tells that something does not
// forward. A message that cannot be read may.
func forwardsNoMore(data []byte) bool {
	const header = 4 // struct netconfmsg, aligned
	if len(data) < header {
		return true
	}
	attrs, err := nl.ParseRouteAttr(data[header:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		if a.Attr.Type == netlink.NetconfaForwarding && len(a.Value) >= 4 {
			return binary.NativeEndian.Uint32(a.Value) == 0
		}
	}
	return false
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
