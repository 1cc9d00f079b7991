package integration

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// A state directory that is new knows no earlier owner of an address, which neighbours may
// know: the next one is announced to them, and they reach it at once.
func TestNeighboursOutliveStateDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := edit(t, full, keys{"icc": nil, "macspoofchk": nil, "ipam.ranges": nil, "ipam.subnet": "10.1.0.0/29"})
	add := func(name string) netip.Addr {
		r := h.must(attachment("bridge-ln", name, netnsPath(name), conf).as("ADD"))
		return parseResult(t, r.stdout).addresses(t)[0].Addr()
	}
	del := func(name string) { h.must(attachment("bridge-ln", name, netnsPath(name), conf).as("DEL")) }
	for _, name := range []string{"neighbour", "earlier", "later"} {
		h.netns(name)
	}
	add("neighbour")
	addr := add("earlier")
	h.check(within(t, netnsPath("neighbour"), func() error { // else it asks again, after 20 s or more
		return os.WriteFile("/proc/sys/net/ipv4/neigh/eth0/base_reachable_time_ms", []byte("3600000"), 0)
	}))
	reach := func(name string) error {
		echoBack(t, netnsPath(name))
		return within(t, netnsPath("neighbour"), func() error {
			c, err := net.Dial("udp4", netip.AddrPortFrom(addr, flowPort).String())
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			_, err = lntest.Exchange(c, "?", lntest.WaitForAnswer)
			return err
		})
	}
	h.check(reach("earlier"))
	h.check(os.RemoveAll(stateDir))
	del("earlier")
	for add("later") != addr { // the pool gives others before
		del("later")
	}
	if err := reach("later"); err != nil {
		t.Errorf("a neighbour of the earlier owner of %s: %v", addr, err)
	}
}

// DEL names its failure to write the state directory; link, rules and lease go
// all the same, and the container beside it stays as it is.
func TestDelWithBadStateDir(t *testing.T) {
	for _, tt := range []struct {
		name       string
		keys       keys
		spoil      func(h *host) // before DEL
		mend       func(h *host) // before the next one; nil: DEL succeeds at once
		want, left string        // in DEL's error, and what stays until then, as a pattern
	}{
		{"read-only", nil, stateReadOnly, stateWritable, "read-only file system", `^file /run/libnet/networks/net/endpoints/c1:eth0.json`},
		{"read-only, by iptables", keys{"backend": "iptables", "macspoofchk": nil}, stateReadOnly, stateWritable, "read-only file system", `^file /run/libnet/networks/net/endpoints/c1:eth0.json`},
		{"full", nil, fill, nil, "", `^file /run/libnet/large`},
		{"another one, full from the start", nil, hideByFull, nil, "", ""},
		{"another one, read-only and empty", nil, func(h *host) { hideByFull(h); stateReadOnly(h) }, nil, "", ""},
		{"a file", nil, func(h *host) {
			h.check(unix.Unmount(stateDir, unix.MNT_DETACH))
			h.check(os.Remove(stateDir))
			h.check(os.WriteFile(stateDir, nil, 0o600))
		}, nil, "", `^file /run/libnet ""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.check(os.MkdirAll(stateDir, 0o700))
			h.check(unix.Mount("tmpfs", stateDir, "tmpfs", 0, "size=256k"))
			conf := edit(t, full, tt.keys)
			stays := attachment("bridge-ln", "stays", h.netns("stays"), conf)
			prev := h.must(stays.as("ADD")).stdout
			before := h.snapshot()
			c := attachment("bridge-ln", "c1", h.netns("c1"), conf)
			h.must(c.as("ADD"))
			tt.spoil(h)
			r := h.run(c.as("DEL"))
			if tt.mend == nil && r.code != 0 || tt.mend != nil && (r.code == 0 || !strings.Contains(r.msg, tt.want)) {
				t.Errorf("DEL: code %d: %s; want %q", r.code, r.msg, tt.want)
			}
			if left := h.snapshot().since(before).without(tt.left); len(left) > 0 {
				t.Errorf("DEL left\n%s", strings.Join(left, "\n"))
			}
			if tt.mend == nil {
				return
			}
			h.must(stays.with(edit(t, conf, map[string]any{"prevResult": raw(prev)})).as("CHECK"))
			tt.mend(h)
			h.must(c.as("DEL"))
			h.same(before)
		})
	}
}

func stateReadOnly(h *host) {
	h.check(unix.Mount("", stateDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func stateWritable(h *host) { h.check(unix.Mount("", stateDir, "", unix.MS_REMOUNT, "")) }

// fill takes all room of the state directory.
func fill(h *host) {
	f, err := os.Create(stateDir + "/large")
	h.check(err)
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	h.check(f.Close())
}

// hideByFull puts an empty directory, which takes nothing, over the records.
func hideByFull(h *host) {
	h.check(unix.Mount("tmpfs", stateDir, "tmpfs", 0, "nr_inodes=1"))
}
