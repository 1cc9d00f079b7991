package netlink

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A subscription that the kernel refuses leaves no descriptor open.
func TestSubscribeRefused(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread goes, with what it gave up
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := open()
	for range 5 {
		if s, err := Subscribe("nftables", unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1), 0); err == nil {
			s.Close()
			t.Fatal("subscribed without CAP_NET_ADMIN")
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}
