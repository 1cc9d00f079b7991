package link

import (
	"errors"
	"net/netip"
	"os/exec"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
)

// findAll is what List and Find tell of all attachments.
func findAll(t *testing.T, h *Links) []Found {
	t.Helper()
	ns, err := h.Namespaces()
	if err != nil {
		t.Fatal(err)
	}
	owned, err := h.List(t.Context(), "libnet:")
	if err != nil {
		t.Fatal(err)
	}
	var all []Found
	for _, o := range owned {
		if o.Bridge {
			continue
		}
		f, err := h.Find(t.Context(), o, ns)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

func TestFind(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	n := newNetns(t)
	br := mustBridge(t, h, testBridge())
	l := testLink(n)
	l.Hairpin = true
	a := mustAttach(t, h, l)
	mustAttach(t, h, Link{Owner: "libnet:net1/c2/net0", HostName: "vethc2", Bridge: "br0", Netns: newNetns(t), IfName: "net0", MTU: 1300, Isolated: true})

	got := findAll(t, h)
	if len(got) != 2 {
		t.Fatalf("found %d attachments, want 2: %+v", len(got), got)
	}
	want := Found{
		Owner: testOwner, HostName: "vethc1", HostMTU: 1500, HostMAC: a.HostMAC, Hairpin: true,
		Bridge: "br0", BridgeMAC: br.MAC, BridgeMTU: 1300, // it follows its ports
		BridgeAddrs: lntest.Prefixes("10.1.0.1/24", "fd00:1::1/64"),
		IfName:      "eth0", MAC: a.MAC, MTU: a.MTU, Addrs: lntest.Prefixes("10.1.0.2/24", "fd00:1::2/64"), Netns: n.Path(),
	}
	if diff := cmp.Diff(want, got[0], cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got[1].Owner != "libnet:net1/c2/net0" || got[1].IfName != "net0" || !got[1].Isolated || got[1].MTU != 1300 || got[1].Addrs != nil {
		t.Errorf("the second: %+v", got[1])
	}

	ns, err := h.Namespaces()
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"10.1.0.2": n.Path(), "fd00:1::2": n.Path(), "10.1.0.9": "", "127.0.0.1": "" /* all have it */} {
		got, err := h.Holder(t.Context(), netip.MustParseAddr(addr), ns)
		if got != want || (err == nil) != (want != "") || want == "" && !errors.Is(err, netlink.ErrNotFound) {
			t.Errorf("owner of %s: %q, %v, want %q", addr, got, err, want)
		}
	}
}

// A namespace that is bound nowhere is found by the process in it, and the
// addresses of one without a process stay known: the link tells.
func TestFindUnbound(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	path := lntest.NewNetns(t)
	n, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	mustBridge(t, h, testBridge())
	mustAttach(t, h, testLink(n))
	sleep := exec.Command("sleep", "60")
	if err := n.Do(sleep.Start); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleep.Process.Kill() }()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if got, want := findAll(t, h)[0].Netns, "/proc/"+strconv.Itoa(sleep.Process.Pid)+"/ns/net"; got != want {
		t.Errorf("found at %q, want %q", got, want)
	}
	if err := sleep.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sleep.Wait()
	if f := findAll(t, h)[0]; f.Netns != "" || len(f.Addrs) != 2 { // n is open still
		t.Errorf("found at %q with %v, want no path and two addresses", f.Netns, f.Addrs)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// A link that was deleted, or has another owner by now, is not found.
func TestFindMissing(t *testing.T) {
	t.Parallel()
	h := newLinks(t)
	mustBridge(t, h, testBridge())
	a := mustAttach(t, h, testLink(newNetns(t)))
	for _, o := range []Owned{
		{Owner: testOwner, Name: "vethc1", Index: 4000},
		{Owner: "libnet:net1/other/eth0", Name: "vethc1", Index: a.HostIndex},
	} {
		if _, err := h.Find(t.Context(), o, nil); !errors.Is(err, netlink.ErrNotFound) {
			t.Errorf("%+v: %v, want ErrNotFound", o, err)
		}
	}
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`/run/netns/a`: "/run/netns/a", `/a\040b\134c`: `/a b\c`, `/end\04`: `/end\04`, `/no\999x`: `/no\999x`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
