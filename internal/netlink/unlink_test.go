package netlink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netns"
)

// DeleteLink returns before the kernel has freed the link, but of both ends nothing can be
// seen any more, by whatever it is looked for, and the names are free; also where
// many links go at once.
func TestDeleteLink(t *testing.T) {
	for name, endsSoon := range map[string]bool{"by a thread": false, "by a process": true} {
		t.Run(name, func(t *testing.T) {
			c := newConn(t)
			if endsSoon {
				c.EndsSoon()
			}
			ns, err := netns.Open(lntest.NewNetns(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			for range 10 {
				var wg sync.WaitGroup
				var all []int
				for i := range 4 {
					all = append(all, wire(t, ns, i))
				}
				for _, index := range all {
					wg.Go(func() {
						if err := c.DeleteLink(index); err != nil {
							t.Error(err)
						}
						if d, err := c.DeviceByIndex(index); !errors.Is(err, ErrNotFound) {
							t.Errorf("removed, and there is %v (%v)", d, err)
						}
					})
				}
				wg.Wait()
				left(t, "here")
				if err := ns.Do(func() error { left(t, "at the other end"); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.DeleteLink(12345); !errors.Is(err, ErrNotFound) {
				t.Errorf("a missing link: %v", err)
			}
		})
	}
}

// BenchmarkDeleteLink is until a veth is gone, by a process that waits for the kernel, as a
// plugin has it done, by a thread, and until the kernel's answer.
func BenchmarkDeleteLink(b *testing.B) {
	for name, remove := range map[string]func(*Conn, int) error{
		"process": func(c *Conn, index int) error { c.EndsSoon(); return c.DeleteLink(index) },
		"thread":  (*Conn).DeleteLink,
		"answer": func(c *Conn, index int) error {
			msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
			msg.Index = int32(index)
			return c.Change(Request(unix.RTM_DELLINK, 0, msg))
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := newConn(b)
			ns, err := netns.Open(lntest.NewNetns(b))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ns.Close() }()
			var took time.Duration
			for b.Loop() {
				index := wire(b, ns, 0)
				start := time.Now()
				if err := remove(c, index); err != nil {
					b.Fatal(err)
				}
				took += time.Since(start)
			}
			b.ReportMetric(took.Seconds()*1000/float64(b.N), "ms/delete")
		})
	}
}

// wire makes a veth with addresses at both ends, of which one is in ns.
func wire(t testing.TB, ns *netns.Namespace, i int) int {
	t.Helper()
	a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b, PeerNamespace: netlink.NsFd(ns.FD())})
	if err == nil {
		err = lntest.Up(a, fmt.Sprintf("10.%d.0.1/24", i), fmt.Sprintf("fd%02d::1/64", i))
	}
	if err == nil {
		err = ns.Do(func() error { return lntest.Up(b, fmt.Sprintf("10.%d.0.2/24", i), fmt.Sprintf("fd%02d::2/64", i)) })
	}
	link, lerr := netlink.LinkByName(a)
	if err := errors.Join(err, lerr); err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

// left says what is there besides lo.
func left(t *testing.T, where string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Error(err)
	}
	for _, l := range links {
		if l.Name != "lo" {
			t.Errorf("%s: link %s is left", where, l.Name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil || len(routes) > 0 {
			t.Errorf("%s: routes %v are left (%v)", where, routes, err)
		}
	}
	for _, file := range []string{"a0", "b0"} {
		if _, err := os.Stat("/proc/sys/net/ipv4/conf/" + file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: settings of %s are left (%v)", where, file, err)
		}
	}
}
