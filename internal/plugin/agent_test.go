package plugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/nodefile"
)

// A plugin reads its own part of the file that an agent writes, and nothing while there
// is none or it is too old.
func TestParseNodeFile(t *testing.T) {
	lntest.Isolate(t)
	dir := t.TempDir()
	if err := lntest.Up("lo", "192.0.2.1/32"); err != nil {
		t.Fatal(err)
	}
	self, block := netip.MustParseAddr("192.0.2.1"), []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24"), netip.MustParsePrefix("10.5.7.0/24")}
	good := nodefile.File{
		Network: "net1", VNI: 5000, Port: 4789, MTU: 1450, Self: self, Blocks: block, Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")},
		Nodes: []nodefile.Node{{Name: "h1", Address: self, Blocks: block}, {Name: "h2", Address: self.Next()}},
	}
	want := model.TunnelConfig{
		Agent: true, Self: self, VNI: 5000, Port: 4789, Subnets: good.Subnets, Nodes: []model.Node{{Address: self, Subnets: block}},
	}
	late, none := good, good
	late.Until, none.Blocks = nodefile.Uptime(), nil
	foreign := good
	foreign.Self = self.Next()
	fresh := good
	fresh.Until = nodefile.Uptime() + 60
	c, err := engine.New(engine.WithStateDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, tt := range map[string]struct {
		file  nodefile.File
		keys  string
		ready bool
		mtu   int
	}{
		"good":     {good, "", true, 1450},
		"own MTU":  {good, `,"mtu":1300`, true, 1300},
		"fresh":    {fresh, "", true, 1450},
		"late":     {late, "", false, 0},
		"no block": {none, "", false, 0},
		"foreign":  {foreign, "", false, 0},
	} {
		if _, err := c.SaveNodeFile(tt.file); err != nil {
			t.Fatal(err)
		}
		got, err := overlay.parse(call(fmt.Sprintf(`"stateDir":%q%s`, dir, tt.keys)))
		if ready := err == nil; ready != tt.ready || !ready && !errors.Is(err, model.ErrNotReady) {
			t.Errorf("%s: %v, want ready %t", name, err, tt.ready)
			continue
		}
		if !tt.ready {
			continue
		}
		if diff := cmp.Diff(want, got.Config.Tunnel, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || got.Config.MTU != tt.mtu {
			t.Errorf("%s: MTU %d (-want +got):\n%s", name, got.Config.MTU, diff)
		}
	}
}

// Whatever stands in the place of a node file is refused at once, by an error
// that names the file.
func TestBadNodeFile(t *testing.T) {
	dir := t.TempDir()
	path := nodefile.Path(dir, "net1")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	const good = `{"version":1,"network":"net1","vni":5000,"port":4789,"mtu":1450,"self":"192.0.2.1","blocks":["10.5.0.0/24"],"subnets":["10.5.0.0/16"],"nodes":[
  {"name":"h1","address":"192.0.2.1","blocks":["10.5.0.0/24"]}
]}
`
	text := func(s string) func() error { return func() error { return os.WriteFile(path, []byte(s), 0o600) } }
	for name, tt := range map[string]struct {
		put  func() error
		says string
	}{
		"FIFO":          {func() error { return unix.Mkfifo(path, 0o600) }, "no regular file"},
		"/dev/zero":     {func() error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }, "no regular file"},
		"link":          {func() error { return os.Symlink("/dev/zero", path) }, "no regular file"},
		"directory":     {func() error { return os.Mkdir(path, 0o700) }, "no regular file"},
		"empty":         {text(""), "empty"},
		"half":          {text(good[:len(good)/2]), "only a part"},
		"without end":   {text(good[:len(good)-4]), "only a part"},
		"other network": {text(strings.Replace(good, "net1", "net2", 1)), `of network "net2"`},
		"new version":   {text(strings.Replace(good, `"version":1`, `"version":3`, 1)), "version 3:"},
		"bad self":      {text(strings.Replace(good, `"self":"192.0.2.1"`, `"self":5`, 1)), "self"},
		"no VNI":        {text(strings.Replace(good, `"vni":5000,`, "", 1)), "want self, vni and port"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "/dev/zero" {
				lntest.NeedsRoot(t, "a device file")
			}
			if err := tt.put(); err != nil {
				t.Fatal(err)
			}
			c := conf{name: "net1"}
			c.StateDir = dir
			if err := c.readNodeFile(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q and the file", err, tt.says)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		})
	}
}
