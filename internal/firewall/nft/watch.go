package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Watcher tells of removals in the network namespace of the thread that opened
// it.
type Watcher struct{ file *os.File }

// Watch begins to watch our tables.
func Watch() (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err == nil {
		err = errors.Join(
			unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
			unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES))
	}
	if err != nil {
		_ = unix.Close(fd) // -1, which is refused, if there was no socket
		return nil, fmt.Errorf("subscribe to nftables events: %w", err)
	}
	return &Watcher{os.NewFile(uintptr(fd), "nfnetlink")}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { _ = w.file.Close() }

// Run calls removed whenever something of our tables has been removed, by
// whomever, or such news may have been lost, until ctx ends.
func (w *Watcher) Run(ctx context.Context, removed func()) error {
	defer context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10) // what is longer is cut, and looked at as far as it goes
	for {
		n, err := w.file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			removed()
			continue
		case err != nil:
			return fmt.Errorf("receive nftables events: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			removed()
		}
		for _, m := range msgs {
			if removes(m) {
				removed()
				break
			}
		}
	}
}

// removes says whether an event is about the removal of something of ours.
func removes(m syscall.NetlinkMessage) bool {
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
	return size >= head && size <= len(name) && bytes.Equal(bytes.TrimRight(name[head:size], "\x00"), []byte(firewall.TableName))
}
