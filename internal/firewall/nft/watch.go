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
// it.
type Watcher struct {
	events *netlink.Subscription
	table  []byte
}

// Watch begins to watch our tables.
func Watch() (*Watcher, error) { return WatchTable(firewall.TableName) }

// WatchTable begins to watch the tables of a name.
func WatchTable(name string) (*Watcher, error) {
	events, err := netlink.Subscribe("nftables", unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1), 0)
	if err != nil {
		return nil, err
	}
	return &Watcher{events, []byte(name)}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { w.events.Close() }

// Run calls removed whenever something of our tables has been removed, by
// whomever, or such news may have been lost, until ctx ends.
func (w *Watcher) Run(ctx context.Context, removed func()) error {
	return w.events.Run(ctx, w.removes, removed)
}

// removes says whether an event is about the removal of something of the tables.
func (w *Watcher) removes(m syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
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
