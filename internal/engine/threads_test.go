package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/state"
)

// newHostAt is newHost in the namespace at path, which the test's threads are
// not in.
func newHostAt(t *testing.T, path string) *realHost {
	t.Helper()
	dir := t.TempDir()
	h := &realHost{t: t, dir: dir, dataDir: filepath.Join(dir, "leases"), netnsDir: filepath.Join(dir, "netns")}
	err := lntest.In(t, path, func() (err error) {
		h.Controller, err = New(WithStateDir(filepath.Join(dir, "state")), WithDataDir(h.dataDir), WithNetnsDir(h.netnsDir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// traces says what of ours is in the calling thread's namespace.
func traces() (string, error) {
	links, err := netlinkNames()
	if err != nil {
		return "", err
	}
	fw := nft.New()
	owners, err := fw.List(context.Background())
	missing := fw.Intact(context.Background(), firewall.Network{}) != nil
	forward, readErr := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	localnet, _ := os.ReadFile("/proc/sys/net/ipv4/conf/brt/route_localnet")
	err = errors.Join(err, readErr, fw.Close())
	return fmt.Sprintf("links %s, %d owners of rules, rules missing %t, ip_forward %s, route_localnet %s",
		links, len(owners), missing, strings.TrimSpace(string(forward)), strings.TrimSpace(string(localnet))), err
}

func netlinkNames() (string, error) {
	all, err := netlink.LinkList()
	var names []string
	for _, l := range all {
		names = append(names, l.Attrs().Name)
	}
	return strings.Join(names, " "), err
}

func tracesAt(t *testing.T, path string) string {
	t.Helper()
	var got string
	err := lntest.In(t, path, func() (err error) {
		got, err = traces()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A Controller works in the namespace it was made in, whatever thread a call
// comes from: link, rules, sysctls and what deletes them.
func TestControllerStaysInItsNamespace(t *testing.T) {
	t.Parallel()
	for _, backend := range []model.Backend{model.BackendNFTables, model.BackendIPTables} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			home, elsewhere := lntest.NewNetns(t), lntest.NewNetns(t)
			before := tracesAt(t, elsewhere)
			h := newHostAt(t, home)
			n := h.network("10.71.0.0/24", WithConfig(model.NetworkConfig{
				Bridge: "brt", Gateway: true, DefaultGateway: true, Masquerade: true, GatewayModeIPv4: model.GatewayNAT, Backend: backend,
			}))
			var e *Endpoint
			from := func(what string, fn func() error) {
				t.Helper()
				if err := lntest.In(t, elsewhere, fn); err != nil {
					t.Fatalf("%s from another namespace: %v", what, err)
				}
			}
			ctx := t.Context()
			from("NewSandbox and Attach", func() error {
				sb, err := h.NewSandbox(ctx, "c1")
				if err != nil {
					return err
				}
				e, err = n.Attach(ctx, sb, WithPorts(model.PortMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}))
				return err
			})
			from("Verify", func() error { return e.Verify(ctx) })
			from("Repair", func() error {
				_, err := h.Repair(ctx)
				return err
			})
			if got := tracesAt(t, elsewhere); got != before {
				t.Errorf("elsewhere: %s, before: %s", got, before)
			}
			var rules string
			_ = lntest.In(t, home, func() (err error) {
				owners, err := h.rules.Owners(ctx, backend)
				rules = fmt.Sprint(len(owners), err)
				return err
			})
			got := tracesAt(t, home)
			if rules != "1 <nil>" || !strings.Contains(got, e.rec.HostName) || !strings.Contains(got, "ip_forward 1, route_localnet 1") {
				t.Errorf("at home: %s; owners of rules: %s", got, rules)
			}
			own := home
			if err := lntest.In(t, elsewhere, func() error {
				_, err := h.NewSandbox(ctx, "c2", WithNetnsPath(own))
				return err
			}); !errors.Is(err, model.ErrOwnNamespace) {
				t.Errorf("sandbox of the Controller's namespace: got %v, want %v", err, model.ErrOwnNamespace)
			}
			from("Sandbox.Delete and RemoveFrom", func() error {
				sb, err := h.Sandbox("c1")
				if err != nil {
					return err
				}
				return errors.Join(n.RemoveFrom(ctx, e.ID(), sb.Path()), sb.Delete(ctx), n.Delete(ctx))
			})
			if got := tracesAt(t, home); !strings.HasPrefix(got, "links lo, 0 owners") {
				t.Errorf("at home after all: %s", got)
			}
		})
	}
}

// Every exported method that works in the kernel brings its thread home.
func TestEveryCallEnters(t *testing.T) {
	t.Parallel()
	entered := errors.New("entered")
	c := newWorld().controller()
	c.home = refusal{entered}
	n := &Network{c: c, def: plan.Network{Name: "n", Driver: plan.DriverBridge}}
	e := &Endpoint{n: n, rec: state.Endpoint{Netns: "/run/netns/c"}}
	free := map[string]bool{ // of what asks nothing of the kernel, or only about a path
		"Close": true, "DefineNetwork": true, "Network": true, "Networks": true, "SpanningNetwork": true, "SpanningNetworks": true, "WalkNetworks": true, "Dead": true, "WhyDead": true,
		"NodeFile": true, "NodeFiles": true, "SaveNodeFile": true, "DeleteNodeFile": true, "Publications": true, "Publisher": true, "Sandbox": true,
		"Name": true, "Driver": true, "Config": true, "Endpoint": true, "Endpoints": true, "WalkEndpoints": true, "Subnets": true, "IPAMType": true, "IPAM": true, "Services": true,
		"ID": true, "Addressing": true, "Ports": true, "Netns": true, "Interfaces": true, "Inspect": true, "Path": true,
		"Labels": true, "FromConf": true, "DriverOptions": true, "Copy": true, "IfName": true, "MAC": true, "Reload": true, "Forget": true, "Holder": true, "Record": true, "Plan": true, "LeaseDir": true, "Left": true, "Unanswered": true,
		"Abandoned": true, "Guests": true, "IsGuest": true,
	}
	for _, on := range []any{c, n, e, &Sandbox{c: c}, &Publisher{c: c}} {
		v := reflect.ValueOf(on)
		for i := range v.NumMethod() {
			m := v.Type().Method(i)
			if free[m.Name] {
				continue
			}
			got := callWithZeros(v.Method(i), t.Context())
			if !strings.Contains(got, entered.Error()) {
				t.Errorf("%s.%s does not enter: %s", v.Type(), m.Name, got)
			}
		}
	}
}

type refusal struct{ err error }

func (r refusal) Enter() (func() error, error) { return nil, r.err }

func callWithZeros(fn reflect.Value, ctx context.Context) (said string) {
	defer func() {
		if p := recover(); p != nil {
			said = fmt.Sprint("panic: ", p)
		}
	}()
	var in []reflect.Value
	for i := range fn.Type().NumIn() {
		typ := fn.Type().In(i)
		switch {
		case fn.Type().IsVariadic() && i == fn.Type().NumIn()-1:
		case reflect.TypeFor[context.Context]() == typ:
			in = append(in, reflect.ValueOf(ctx))
		default:
			in = append(in, reflect.Zero(typ))
		}
	}
	for _, out := range fn.Call(in) {
		said += fmt.Sprint(out.Interface(), " ")
	}
	return said
}

// socketsIn counts the process's sockets in a network namespace.
func socketsIn(t *testing.T, path string) (count int) {
	t.Helper()
	var want unix.Stat_t
	if err := unix.Stat(path, &want); err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range fds {
		fd, _ := strconv.Atoi(entry.Name())
		ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
		if err != nil {
			continue // no socket
		}
		var st unix.Stat_t
		if unix.Fstat(ns, &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			count++
		}
		_ = unix.Close(ns)
	}
	return count
}

// Close closes everything: a socket that stays keeps its namespace alive.
func TestCloseClosesAll(t *testing.T) {
	t.Parallel()
	home := lntest.NewNetns(t)
	for i := range 50 {
		h := newHostAt(t, home)
		n := h.network(fmt.Sprintf("10.72.%d.0/24", i), WithMasquerade())
		sb, err := h.NewSandbox(t.Context(), fmt.Sprintf("c%d", i))
		if err != nil {
			t.Fatal(err)
		}
		e, err := n.Attach(t.Context(), sb)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(e.Leave(t.Context()), e.Delete(t.Context()), sb.Delete(t.Context()), n.Delete(t.Context())); err != nil {
			t.Fatal(err)
		}
		if socketsIn(t, home) == 0 {
			t.Fatal("no socket is open before Close: the test sees none")
		}
		h.Close()
		if left := socketsIn(t, home); left != 0 {
			t.Fatalf("round %d: %d sockets are open after Close", i, left)
		}
	}
}
