package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// realHost is an Operator in a network namespace of the test's own.
type realHost struct {
	*Operator
	t        *testing.T
	dir      string
	dataDir  string
	netnsDir string
}

func newHost(t *testing.T) *realHost {
	t.Helper()
	lntest.Isolate(t)
	dir := t.TempDir()
	h := &realHost{t: t, dir: dir, dataDir: filepath.Join(dir, "leases"), netnsDir: filepath.Join(dir, "netns")}
	c, err := Open(Options{StateDir: filepath.Join(dir, "state"), DataDir: h.dataDir}, engine.WithNetnsDir(h.netnsDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h.Operator = c
	return h
}

func (h *realHost) network(subnet string, opts ...engine.NetworkOption) *engine.Network {
	h.t.Helper()
	n, err := h.NewNetwork(context.Background(), "bridge", "net1", append(opts, engine.WithSubnet(netip.MustParsePrefix(subnet)))...)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *realHost) sandbox(id string) *engine.Sandbox {
	h.t.Helper()
	sb, err := h.NewSandbox(context.Background(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := sb.Delete(context.Background()); err != nil {
			h.t.Error(err)
		}
	})
	return sb
}

// links lists the links of the host, without the indexes that change.
func (h *realHost) links() []string {
	h.t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, l := range all {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, fmt.Sprint(l.Attrs().Name, " ", l.Type(), " ", addrs))
	}
	return out
}

// files lists the leases and records there are.
func (h *realHost) files() []string {
	h.t.Helper()
	var out []string
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		name := d.Name()
		if strings.HasSuffix(name, ".json") || strings.Count(name, ".") == 3 {
			out = append(out, strings.TrimPrefix(path, h.dir))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *realHost) nft(args ...string) string {
	h.t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (h *realHost) web(n *engine.Network) (*engine.Endpoint, error) {
	h.t.Helper()
	sb := h.sandbox("a")
	e, err := n.Attach(context.Background(), sb)
	if err != nil {
		return nil, err
	}
	ns, err := life.OpenNetns(sb.Path())
	if err != nil {
		return nil, err
	}
	var l net.Listener
	err = errors.Join(ns.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }), ns.Close())
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, "a")
			_ = c.Close()
		}
	}()
	return e, nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ipnet(cidr string) *net.IPNet {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// greets returns the name of the server that answers at an address of the host.
func greets(addr string) string {
	d := net.Dialer{Timeout: 2 * time.Second}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 64)
	k, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:k])
}
