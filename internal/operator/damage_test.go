package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// run runs a command in the calling thread's namespace.
func run(t *testing.T, line string) {
	t.Helper()
	f := strings.Fields(line)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// connects says whether the host gets to an address.
func connects(addr string, patience time.Duration) bool {
	c, err := lntest.Dial("tcp", addr, patience)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// undone says that the kernel has enabled a port again that the command disabled. It does so
// whenever it notices that the link has a carrier (br_port_carrier_check), which it notices
// late on a busy machine: a check after that sees a sound port.
func undone(t *testing.T, command, port string) bool {
	t.Helper()
	if !strings.HasSuffix(command, "dev "+port+" state 0") {
		return false
	}
	state, err := exec.Command("bridge", "link", "show", "dev", port).CombinedOutput()
	if err != nil {
		t.Fatalf("bridge link show: %v\n%s", err, state)
	}
	return !strings.Contains(string(state), "state disabled")
}

// damaged runs a command that does damage, and checks what is then to be seen; again if the
// kernel has undone the damage meanwhile. It says so if it did each time, in a test that
// looks at what libnet finds, not at the kernel.
func damaged(t *testing.T, command, port, what string, check func() error) {
	t.Helper()
	var err error
	lasted := lntest.Await(lntest.WaitForAnswer, func() bool {
		run(t, command)
		err = check()
		return err == nil || !undone(t, command, port)
	})
	switch {
	case !lasted:
		t.Logf("%s: the kernel undoes it at once, each time: %v", what, err)
	case err != nil:
		t.Errorf("%s: %v", what, err)
	}
}

// finds says whether doctor has a finding with this text and an advice.
func (h *realHost) finds(text string) bool {
	for _, f := range h.Diagnose(context.Background()) {
		if strings.Contains(f.Found, text) && f.Advice != "" {
			return true
		}
	}
	return false
}

// Each damage cuts the host off from a container: packets do not arrive, CHECK and
// doctor say so, and where an ADD would mend it STATUS does.
func TestDamage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", engine.WithSubnet(netip.MustParsePrefix("fd01::/64")),
		engine.WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true}))
	br := n.Config().Bridge
	e, err := h.web(n)
	if err != nil {
		t.Fatal(err)
	}
	a6, a4 := e.Addressing().Addresses[0].Prefix.Addr().String(), e.Addressing().Addresses[1].Prefix.Addr().String()
	port := e.ID().HostName()
	to4, to6 := net.JoinHostPort(a4, "80"), net.JoinHostPort(a6, "80")
	adds := 0
	add := func() {
		adds++
		h.attach(n, fmt.Sprint("x", adds))
	}
	status := func() {
		if err := n.Status(ctx); err != nil {
			t.Errorf("status: %v", err)
		}
	}
	repair := func() {
		if _, err := h.Repair(ctx); err != nil {
			t.Errorf("repair: %v", err)
		}
	}
	by := func(line string) func() { return func() { run(t, line) } }
	for _, tt := range []struct {
		name, damage, to, says string
		mend                   func()
	}{
		{"IPv4 route, status", "ip route del 10.1.0.0/24 dev " + br, to4, "route to 10.1.0.0/24 is missing", status},
		{"IPv4 route, ADD", "ip route del 10.1.0.0/24 dev " + br, to4, "route to 10.1.0.0/24 is missing", add},
		{"IPv4 route, repair", "ip route del 10.1.0.0/24 dev " + br, to4, "route to 10.1.0.0/24 is missing", repair},
		{"IPv6 route, status", "ip -6 route del fd01::/64 dev " + br, to6, "route to fd01::/64 is missing", status},
		{"IPv6 route, ADD", "ip -6 route del fd01::/64 dev " + br, to6, "route to fd01::/64 is missing", add},
		{"port disabled", "bridge link set dev " + port + " state 0", to4, "port of " + br + " is disabled", by("bridge link set dev " + port + " state 3")},
		{"IPv4 neighbour", "ip neigh replace " + a4 + " lladdr 02:00:00:00:00:99 nud permanent dev " + br, to4, "has MAC 02:00:00:00:00:99", by("ip neigh del " + a4 + " dev " + br)},
		{"IPv6 neighbour", "ip neigh replace " + a6 + " lladdr 02:00:00:00:00:99 nud permanent dev " + br, to6, "has MAC 02:00:00:00:00:99", by("ip neigh del " + a6 + " dev " + br)},
		{"rule", "ip rule add pref 100 to 10.1.0.0/24 unreachable", to4, "do not leave by " + br + ": a rule or a route drops", by("ip rule del pref 100")},
		{"IPv6 rule", "ip -6 rule add pref 100 to fd01::/64 prohibit", to6, "do not leave by " + br + ": a rule or a route drops", by("ip -6 rule del pref 100")},
		{"blackhole", "ip route add blackhole " + a4, to4, "do not leave by " + br + ": a rule or a route drops", by("ip route del blackhole " + a4)},
		{"IPv6 unreachable", "ip -6 route add unreachable " + a6, to6, "do not leave by " + br + ": a rule or a route drops", by("ip -6 route del unreachable " + a6)},
		{"route elsewhere", "ip route add " + a4 + " dev lo", to4, "leads by lo", by("ip route del " + a4 + " dev lo")},
	} {
		if !connects(tt.to, lntest.WaitForAnswer) || e.Verify(ctx) != nil || h.finds(tt.says) {
			t.Fatalf("%s: before the damage: %v", tt.name, e.Verify(ctx))
		}
		damaged(t, tt.damage, port, tt.name, func() error {
			if err := e.Verify(ctx); !errors.Is(err, model.ErrDifferent) || !strings.Contains(err.Error(), tt.says) {
				return fmt.Errorf("verify says %w, want %q", err, tt.says)
			}
			if !h.finds(tt.says) {
				return errors.New("doctor does not find it")
			}
			if connects(tt.to, time.Second) {
				return errors.New("it does no damage")
			}
			return nil
		})
		tt.mend()
		if !connects(tt.to, lntest.WaitForAnswer) {
			t.Fatalf("%s: not mended", tt.name)
		}
	}
	run(t, "ip rule add pref 90 from 10.1.0.0/24 prohibit")
	run(t, "ip rule add pref 91 fwmark 1 unreachable")
	if !h.finds("90: from 10.1.0.0/24 prohibit") || h.finds("91:") {
		t.Errorf("rules: %+v", h.Diagnose(ctx))
	}
}

// A bridge whose routes are in another table, to which a rule leads, and one of a VRF
// lack nothing.
func TestRoutesElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	n := h.network("10.1.0.0/24", engine.WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true}))
	br := n.Config().Bridge
	e, err := h.web(n)
	if err != nil {
		t.Fatal(err)
	}
	main := func() string {
		out, err := exec.Command("ip", "route", "show", "table", "main").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	run(t, "ip route add 10.1.0.0/24 dev "+br+" table 100")
	run(t, "ip rule add pref 100 to 10.1.0.0/24 lookup 100")
	run(t, "ip route del 10.1.0.0/24 dev "+br)
	before := main()
	if err := errors.Join(e.Verify(ctx), n.Status(ctx)); err != nil {
		t.Errorf("in another table: %v", err)
	}
	if x := h.attach(n, "x"); x.Verify(ctx) != nil || main() != before {
		t.Errorf("ADD made a route that is in another table:\n%s", main())
	}
	if exec.Command("ip", "link", "add", "vrf0", "type", "vrf", "table", "7").Run() != nil {
		return // a kernel without VRFs
	}
	run(t, "ip link set vrf0 up")
	run(t, "ip link set "+br+" master vrf0")
	before = main()
	if err := errors.Join(e.Verify(ctx), n.Status(ctx)); err != nil || main() != before {
		t.Errorf("in a VRF: %v\n%s", err, main())
	}
}
