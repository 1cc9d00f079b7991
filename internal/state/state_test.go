package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sample = Endpoint{
	Network: "net1", ContainerID: "c1", IfName: "eth0", Phase: PhaseReady, Boot: "b", Netns: "/run/netns/c1",
	NetnsID: NetnsID{1, 2, 3}, MountNS: "4026531841", Bridge: "br0", HostName: "veth0", MAC: "02:00:00:00:00:01",
	Addresses: []Address{{Prefix: netip.MustParsePrefix("10.1.0.2/24"), Gateway: netip.MustParseAddr("10.1.0.1")}},
}

func TestEndpointRoundTrip(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	if _, err := d.LoadEndpoint("net1", "c1", "eth0"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("before: error %v, want ErrNotFound", err)
	}
	if err := d.CreateEndpoint(sample); err != nil {
		t.Fatal(err)
	}
	if err := d.CreateEndpoint(sample); !errors.Is(err, ErrExists) {
		t.Fatalf("again: error %v, want ErrExists", err)
	}
	changed := sample
	changed.Phase = PhaseLeased
	if err := d.SaveEndpoint(changed); err != nil {
		t.Fatal(err)
	}
	got, err := d.LoadEndpoint("net1", "c1", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	all, err := d.Endpoints("net1")
	if err != nil || len(all) != 1 {
		t.Errorf("Endpoints: %d, %v, want 1", len(all), err)
	}
	for range 2 { // missing is success
		if err := d.DeleteEndpoint("net1", "c1", "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(d.endpointDir("net1")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// encoding/json reads the records that encode writes.
func TestEncode(t *testing.T) {
	five := 5
	full := sample
	full.Rules, full.IPAM, full.DataDir = true, "ipam-ln", "/data"
	full.Addresses = append([]Address{{}}, sample.Addresses...)
	full.Routes = []Route{
		{Dst: netip.MustParsePrefix("::/0")},
		{Dst: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("10.1.0.1"), MTU: 1, AdvMSS: 2, Priority: 3, Table: &five, Scope: &five},
	}
	full.Names = &Names{Own: []string{"web", "www"}, Domain: "libnet.internal"}
	full.DNS = DNS{Nameservers: []string{"10.0.0.1"}, Domain: "a", Search: []string{"b"}, Options: []string{"c"}}
	full.Links = []Link{{Name: "br0"}, {Name: "eth0", MAC: "02:00:00:00:00:01", MTU: 1500, Netns: "/run/netns/c1"}}
	for _, want := range []Endpoint{{}, {Names: &Names{}}, sample, full} {
		var got Endpoint
		if err := json.Unmarshal(want.encode(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestHasNetwork(t *testing.T) {
	d := New(t.TempDir())
	if err := d.SaveNetwork(Network{Name: "n", Fingerprint: "f1"}); err != nil {
		t.Fatal(err)
	}
	if !d.HasNetwork("n", "f1") || d.HasNetwork("n", "f") || d.HasNetwork("n", "f11") || d.HasNetwork("m", "f1") {
		t.Error("HasNetwork does not tell fingerprints or names apart")
	}
}

func TestNamesDoNotCollide(t *testing.T) {
	d := New(t.TempDir())
	for _, id := range [][2]string{{"a-b", "c"}, {"a", "b-c"}, {"a.b", "c"}, {"a", "b.c"}} {
		if err := d.CreateEndpoint(Endpoint{Network: "n", ContainerID: id[0], IfName: id[1]}); err != nil {
			t.Errorf("%v: %v", id, err)
		}
	}
}

func TestBadNames(t *testing.T) {
	root := t.TempDir()
	d := New(filepath.Join(root, "state"))
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a:b", strings.Repeat("x", 201)} {
		for what, err := range map[string]error{
			"network": d.SaveNetwork(Network{Name: name}),
			"id":      d.SaveEndpoint(Endpoint{Network: "n", ContainerID: name, IfName: "eth0"}),
			"ifname":  d.SaveEndpoint(Endpoint{Network: "n", ContainerID: "c", IfName: name}),
			"sandbox": d.SaveSandbox(Sandbox{ID: name}),
		} {
			if !errors.Is(err, ErrBadName) {
				t.Errorf("%s %.10q: error %v, want ErrBadName", what, name, err)
			}
		}
	}
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("bad names made %v", entries)
	}
}

// A record that cannot be decoded is set aside, whatever it is, and does not hide the
// rest.
func TestUnreadableRecords(t *testing.T) {
	d := New(t.TempDir())
	if err := d.SaveEndpoint(sample); err != nil {
		t.Fatal(err)
	}
	dir := d.endpointDir("net1")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(`{"Network":"net1","ContainerID":"evil"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"empty:eth0.json":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"garbage:eth0.json": func(p string) error { return os.WriteFile(p, []byte("{\x00"), 0o600) },
		"huge:eth0.json":    func(p string) error { return os.WriteFile(p, []byte(strings.Repeat(" ", maxRecord)+"{}"), 0o600) },
		"link:eth0.json":    func(p string) error { return os.Symlink(outside, p) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := d.Endpoints("net1")
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
	if len(all) != 1 || all[0].ContainerID != "c1" {
		t.Errorf("got %v, want c1 alone", all)
	}
	if all, err = d.Endpoints("net1"); err != nil || len(all) != 1 {
		t.Errorf("set aside, they are still reported: %v", err)
	}
}

func TestNetworks(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	if all, err := d.Networks(); err != nil || len(all) != 0 {
		t.Fatalf("none yet: %v, %v", all, err)
	}
	for _, name := range []string{"b", "a"} {
		if err := d.CreateNetwork(Network{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.SaveEndpoint(Endpoint{Network: "a", ContainerID: "c", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	all, err := d.Networks()
	if err != nil || len(all) != 2 || all[0].Name != "a" {
		t.Fatalf("Networks: %v, %v", all, err)
	}
	// The record of a living attachment outlives its network's.
	if err := d.DeleteNetwork("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.LoadEndpoint("a", "c", "eth0"); err != nil {
		t.Errorf("the attachment's record went with the network's: %v", err)
	}
	if err := errors.Join(d.DeleteEndpoint("a", "c", "eth0"), d.DeleteNetwork("a"), d.DeleteNetwork("b"), d.DeleteNetwork("b")); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(d.Path(), "networks")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestConcurrentCreateHasOneWinner(t *testing.T) {
	d := New(t.TempDir())
	var wg sync.WaitGroup
	won := make(chan bool, 32)
	for range cap(won) {
		wg.Go(func() {
			err := d.CreateEndpoint(sample)
			if err != nil && !errors.Is(err, ErrExists) {
				t.Error(err)
			}
			won <- err == nil
		})
	}
	wg.Wait()
	close(won)
	winners := 0
	for w := range won {
		if w {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d creations succeeded, want 1", winners)
	}
}

func TestWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(filepath.Join(t.TempDir(), "new")).Writable(); err != nil {
		t.Errorf("a directory that can be made: %v", err)
	}
	if err := New(filepath.Join(file, "x")).Writable(); err == nil {
		t.Error("a directory below a file: no error")
	}
}

func FuzzLoadEndpoint(f *testing.F) {
	f.Add([]byte(`{"Network":"n"}`))
	f.Add([]byte(`{"Addresses":[{"Prefix":"10.1.0.2/24"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := New(t.TempDir())
		if err := os.MkdirAll(d.endpointDir("n"), 0o700); err != nil {
			t.Fatal(err)
		}
		path, _ := d.endpointFile("n", "c", "eth0")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.LoadEndpoint("n", "c", "eth0"); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt or none", err)
		}
	})
}

// Many that replace a record at the same time all succeed, and leave no draft.
func TestReplaceByMany(t *testing.T) {
	d := New(t.TempDir())
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 50 {
				if err := d.SaveNetwork(Network{Name: "net", Bridge: fmt.Sprint("br", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := d.LoadNetwork("net"); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(d.Path(), "networks", "net", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A lock is had, and a record is written, while another process makes and removes the directory all the
// time.
func TestLockBesideRemoval(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for {
			select {
			case <-stop:
				done <- err
				return
			default:
				err = errors.Join(err, d.DeleteNetwork("net"))
			}
		}
	}()
	for range 400 {
		release, err := d.Own(t.Context(), "net", "c", "eth0", Create)
		if err != nil {
			t.Fatal(err)
		}
		e := Endpoint{Network: "net", ContainerID: "c", IfName: "eth0"}
		if err := errors.Join(d.CreateEndpoint(e), d.DeleteEndpoint("net", "c", "eth0")); err != nil {
			t.Fatal(err)
		}
		release()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The record of all ports that one container may publish can be written and read.
func TestManyPorts(t *testing.T) {
	d := New(t.TempDir())
	rec := sample
	for i := range 65536 {
		rec.Ports = append(rec.Ports, Port{Protocol: "sctp", HostIP: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), HostPort: 65535 - i%9, HostPortEnd: 65535, ContainerPort: 65535})
	}
	if err := d.SaveEndpoint(rec); err != nil {
		t.Fatal(err)
	}
	if got, err := d.LoadEndpoint(rec.Network, rec.ContainerID, rec.IfName); err != nil || len(got.Ports) != len(rec.Ports) {
		t.Errorf("%d ports, %v", len(got.Ports), err)
	}
}

// A record has the ports that wait, and the addresses that were given.
func TestStandbyAndAddresses(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	s, err := d.LoadStandby("c1")
	if err != nil || s.ContainerID != "c1" || s.Waiting != nil {
		t.Errorf("before: %+v, %v", s, err)
	}
	s.Waiting = []Waiting{{Network: "net1", IfName: "eth1", Ports: []Port{{Protocol: "tcp", HostPort: 80, ContainerPort: 80}}}}
	if err := d.SaveStandby(s); err != nil {
		t.Fatal(err)
	}
	if got, err := d.LoadStandby("c1"); err != nil || len(got.Waiting) != 1 || got.Waiting[0].Ports[0].HostPort != 80 {
		t.Errorf("read back: %+v, %v", got, err)
	}
	if all, err := d.Standbys(); err != nil || len(all) != 1 || all[0] != "c1" {
		t.Errorf("containers: %v, %v", all, err)
	}
	s.Waiting = nil
	for range 2 {
		if err := d.SaveStandby(s); err != nil {
			t.Fatal(err)
		}
	}
	release, err := d.OwnPorts(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if all, err := d.Standbys(); err != nil || len(all) != 0 {
		t.Errorf("containers at the end: %v, %v", all, err)
	}
	two := []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	for _, want := range []int{0, 2} {
		if given, err := d.GiveAddrs(two, "br0", nil); err != nil || len(given.Again) != want {
			t.Errorf("given again: %v, %v, want %d", given, err, want)
		}
	}
}

// A bridge is noted until another one of its name is, or the directory is another one.
func TestNoteBridge(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	first, second := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	noted := func(want bool, name string, mac net.HardwareAddr) {
		t.Helper()
		if given, err := d.GiveAddrs(nil, name, mac); err != nil || given.Noted != want {
			t.Errorf("%s with %s noted: %v, %v, want %t", name, mac, given, err, want)
		}
	}
	noted(false, "br0", first)
	for i := range 256 {
		if _, err := d.GiveAddrs([]netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})}, "br0", second); err != nil {
			t.Fatal(err)
		}
	}
	noted(false, "br0", first)
	if err := d.NoteBridge("br0", first); err != nil {
		t.Fatal(err)
	}
	noted(true, "br0", first)
	noted(false, "br1", first)
	noted(false, "br0", second)
	if err := d.NoteBridge("br0", second); err != nil {
		t.Fatal(err)
	}
	noted(false, "br0", first)
	noted(true, "br0", second)
	if err := os.RemoveAll(d.root); err != nil {
		t.Fatal(err)
	}
	noted(false, "br0", second)
}

// Of those that replace a record at once, all having read the same one, one does.
func TestSwapNetwork(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	old := Network{Name: "net1", Driver: "bridge", Bridge: "br0", Fingerprint: "old"}
	swap := func(n Network) bool {
		swapped, err := d.SwapNetwork(old, n)
		if err != nil {
			t.Error(err)
		}
		return swapped
	}
	if swap(Network{Name: "net1", Fingerprint: "new"}) {
		t.Error("there is none")
	}
	if entries, err := os.ReadDir(d.root); len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := d.SaveNetwork(old); err != nil {
		t.Fatal(err)
	}
	var swapped [8]bool
	var wg sync.WaitGroup
	for i := range swapped {
		wg.Go(func() { swapped[i] = swap(Network{Name: "net1", Bridge: fmt.Sprint("br", i), Fingerprint: "new"}) })
	}
	wg.Wait()
	rec, err := d.LoadNetwork("net1")
	for i, did := range swapped {
		if err != nil || did != (rec.Bridge == fmt.Sprint("br", i)) {
			t.Errorf("%d swapped: %t, and the record is %+v, %v", i, did, rec, err)
		}
	}
}
