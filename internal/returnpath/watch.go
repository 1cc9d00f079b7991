package returnpath

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Watcher tells of removals in the network namespace of the thread that opened it.
type Watcher struct{ events *netlink.Subscription }

// Watch begins to watch our rules of the routing policy.
func Watch() (*Watcher, error) {
	const groups = unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)
	events, err := netlink.Subscribe("routing policy", unix.NETLINK_ROUTE, groups, 0)
	if err != nil {
		return nil, err
	}
	return &Watcher{events}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { w.events.Close() }

// Run calls removed whenever one of our rules has been removed, by whomever, or such news may have
// been lost, until ctx ends.
func (w *Watcher) Run(ctx context.Context, removed func()) error {
	return w.events.Run(ctx, func(m syscall.NetlinkMessage) bool {
		if m.Header.Type != unix.RTM_DELRULE {
			return false
		}
		_, ours, err := parseRule(m.Data)
		return ours || err != nil
	}, removed)
}
