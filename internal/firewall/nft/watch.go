package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// Watcher tells of removals in the network namespace of the thread that opened
// it, and of additions, if it is to.
type Watcher struct {
	events    *netlink.Subscription
	table     []byte
	additions bool
	ours      func(port uint32) bool
}

// watchBuffer is how many bytes of events wait in the kernel: a table that is written anew fills its
// default of 208 KiB on a busy machine, and what is lost counts as a change by another program.
const watchBuffer = 4 << 20

// Watch begins to watch our tables for removals.
func Watch() (*Watcher, error) { return WatchTable(firewall.TableName, false, nil) }

// WatchTable begins to watch the tables of a name. With additions, also rules and elements that are
// added or changed count. A change that was made through a netlink socket does not count if ours
// returns true for its port ID; with nil every change counts.
func WatchTable(name string, additions bool, ours func(port uint32) bool) (*Watcher, error) {
	events, err := netlink.Subscribe("nftables", unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1), watchBuffer)
	if err != nil {
		return nil, err
	}
	return &Watcher{events, []byte(name), additions, ours}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { w.events.Close() }

// Run calls changed whenever something of our tables has been removed, or added if
// that counts, or such news may have been lost, until ctx ends.
func (w *Watcher) Run(ctx context.Context, changed func()) error {
	return w.events.Run(ctx, w.changes, changed)
}

// changes says whether an event is about something of the tables that counts.
func (w *Watcher) changes(m syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || w.ours != nil && w.ours(m.Header.Pid) {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_NEWSETELEM:
		if !w.additions {
			return false
		}
	default:
		return false
	}
	// Of each of them the first attribute is the table's name, after struct nfgenmsg.
	const gen, head = 4, 4
	if len(m.Data) < gen+head {
		return false
	}
	name := m.Data[gen:]
	size := int(binary.NativeEndian.Uint16(name))
	return size >= head && size <= len(name) && bytes.Equal(bytes.TrimRight(name[head:size], "\x00"), w.table)
}
