package nft

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/lntest"
)

func words(s string) []string { return strings.Fields(s) }

// conditioned is an endpoint number i with conditions for both families.
func conditioned(i int) firewall.Endpoint {
	_, e := sample(i)
	e.Masquerade, e.MAC, e.Hairpin = firewall.Families{}, nil, true
	e.Ports = []firewall.PortMap{tcp(uint16(1000+10*i), 80), upTo(uint16(1009+10*i), tcp(uint16(1001+10*i), 90))}
	e.ConditionsIPv4, e.ConditionsIPv6 = words("ip saddr { 10.0.0.0/8, 192.0.2.0/24 }"), words("ip6 saddr fd00::/8 meta l4proto tcp")
	return e
}

// listed is what nft lists, and so understands, of our tables.
func listed(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}

func TestConditionsLife(t *testing.T) {
	t.Parallel()
	f := start(t)
	before := listed(t)
	e, other := conditioned(1), conditioned(2)
	for range 2 {
		mustApply(t, f, firewall.Network{}, e)
		mustVerify(t, f, firewall.Network{}, e)
	}
	mustApply(t, f, firewall.Network{}, other)
	wantOwners(t, f, e.Owner, other.Owner)
	if all := listed(t); strings.Count(all, "ip saddr { 10.0.0.0/8, 192.0.2.0/24 } goto met comment") != 2 {
		t.Errorf("nft lists\n%s", all)
	}
	changed := e
	changed.ConditionsIPv4 = words("iifname eth0")
	if err := f.Verify(t.Context(), firewall.Network{}, changed); !errors.Is(err, firewall.ErrMissing) {
		t.Errorf("verify of other words: got %v, want ErrMissing", err)
	}
	mustApply(t, f, firewall.Network{}, changed)
	mustVerify(t, f, firewall.Network{}, changed)

	lntest.Run(t, "nft", "flush", "table", "ip", "libnet") // rules are gone, elements are not
	for _, e := range []firewall.Endpoint{changed, other} {
		if err := f.Verify(t.Context(), firewall.Network{}, e); !errors.Is(err, firewall.ErrMissing) {
			t.Errorf("verify of a flushed table: got %v, want ErrMissing", err)
		}
		mustApply(t, f, firewall.Network{}, e)
		mustVerify(t, f, firewall.Network{}, e)
	}
	lntest.Run(t, "nft", "delete", "table", "ip", "libnet")
	mustApply(t, f, firewall.Network{}, changed)
	mustVerify(t, f, firewall.Network{}, changed)

	mustRemove(t, f, firewall.Endpoint{Owner: changed.Owner})
	wantOwners(t, f, other.Owner)
	mustApply(t, f, firewall.Network{}, other)
	mustVerify(t, f, firewall.Network{}, other)
	mustRemove(t, f, firewall.Endpoint{Owner: other.Owner, Port: "-", Bridge: other.Bridge, Addrs: other.Addrs, Ports: other.Ports})
	mustRemoveNetwork(t, f, firewall.Network{Name: "n"})
	if after := listed(t); after != before {
		t.Errorf("left are\n%s", after)
	}
}

// A port is held whichever owner has conditions.
func TestConditionedPortsAreHeld(t *testing.T) {
	t.Parallel()
	f := start(t)
	with, without := conditioned(1), conditioned(1)
	without.Owner, without.ConditionsIPv4, without.ConditionsIPv6 = "other", nil, nil
	for _, pair := range [][2]firewall.Endpoint{{with, without}, {without, with}} {
		first, second := pair[0], pair[1]
		mustApply(t, f, firewall.Network{}, first)
		for i := range second.Ports {
			one := second
			one.Ports = second.Ports[i : i+1]
			var held *firewall.PortHeldError
			if _, err := f.Apply(t.Context(), firewall.Network{}, one); !errors.As(err, &held) || held.Owner != first.Owner {
				t.Errorf("%s after %s: got %v, want it held", one.Ports[0], first.Owner, err)
			}
			if err := f.CheckPorts(t.Context(), one); !errors.As(err, &held) {
				t.Errorf("%s after %s: CheckPorts says %v", one.Ports[0], first.Owner, err)
			}
		}
		mustRemove(t, f, first)
	}
}

// A condition that nft does not understand is refused in nft's words, and can be removed.
func TestConditionsRefusedByNFT(t *testing.T) {
	t.Parallel()
	f := start(t)
	before := listed(t)
	for bad, says := range map[string]string{
		"foo bar":                        "nft: ",
		"ip saddr 10.0.0.0/8 accept":     "nft: Statement after terminal statement has no effect",
		"ip saddr 10.0.0.0/33":           "nft: ",
		"ip6 saddr fd00::/8":             "nft: conflicting protocols specified: ip vs. ip6",
		`comment "x"`:                    "nft: syntax error, unexpected comment",
		"jump { accept }":                "nft: syntax error",
		"ip saddr @nosuchset":            "nft: No such file or directory",
		`iifname "a" } { add table ip x`: "closes a brace",
		"$x":                             "nft: unknown identifier 'x'",
		"position 1":                     "nft: ",
	} {
		e := conditioned(1)
		e.ConditionsIPv4 = words(bad)
		_, err := f.Apply(t.Context(), firewall.Network{}, e)
		var refused *firewall.ConditionError
		if !errors.As(err, &refused) || refused.IPv6 || !errors.Is(err, firewall.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want a ConditionError with %q", bad, err, says)
		}
		mustRemove(t, f, firewall.Endpoint{Owner: e.Owner})
		mustRemoveNetwork(t, f, firewall.Network{Name: "n"})
		if after := listed(t); after != before {
			t.Errorf("%s: left are\n%s", bad, after)
		}
	}
}

func TestConditionsPackets(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		e.ConditionsIPv4 = words("ip saddr { 192.0.2.2, 127.0.0.0/8, 10.10.0.3, 10.10.0.1 } th sport 1024-65535")
		e.ConditionsIPv6 = words("ip6 saddr fd10::/16")
	})
	for _, tt := range []struct{ from, to, source string }{
		{l.out, "192.0.2.1:8080", "192.0.2.2"},
		{l.b, "10.10.0.1:8080", "10.10.0.1"}, // hairpin
		{l.b, "[fd10::1]:8080", "fd10::1"},
		{"", "127.0.0.1:8080", "10.10.0.1"}, // the host, by localhost
		{"", "10.10.0.1:8080", "10.10.0.1"},
	} {
		l.wantSource(tt.from, tt.to, tt.source)
	}
	l.wantNothing(l.c, "10.11.0.1:8080")
	l.wantNothing("", "192.0.2.1:8080") // asked by 192.0.2.1
	l.wantNothing(l.out, "[fd20::1]:8080")
	l.wantNothing("", "[fd20::1]:8080")
	mustVerify(t, l.f, l.n, l.eA)
	mustRemove(t, l.f, l.eA)
	l.wantNothing(l.out, "192.0.2.1:8080")
}

// Words of one protocol stand beside a port of another one, and say no to it.
func TestConditionsOfAProtocol(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) { e.ConditionsIPv4 = words("tcp sport 1024-65535") })
	if got, err := l.ask("tcp", l.out, "192.0.2.1:8080", lntest.WaitForAnswer); err != nil || got.String() != "192.0.2.2" {
		t.Errorf("tcp: %v, %v", got, err)
	}
	if got, err := l.ask("udp", l.out, "192.0.2.1:8080", lntest.WaitForNone); err == nil {
		t.Errorf("udp: seen as %v", got)
	}
}

// Ranges and clients are as without conditions.
func TestConditionsRange(t *testing.T) {
	t.Parallel()
	l := publishing(t, func(_ *firewall.Network, e *firewall.Endpoint) {
		eachPort(e, func(m *firewall.PortMap) {
			m.HostPort, m.HostPortEnd, m.ContainerPort = 4000, 5000, 4000
			*m = from(*m, "192.0.2.0/24", "fd20::/16")
		})
		e.Ports = append(e.Ports, upTo(8000, tcp(7999, servicePort-1)))
		e.ConditionsIPv4, e.ConditionsIPv6 = words("counter"), words("counter")
	})
	l.wantSource(l.out, "192.0.2.1:4711", "192.0.2.2")
	l.wantSource(l.out, "[fd20::1]:4711", "fd20::2")
	if got, err := l.ask("tcp", l.out, "192.0.2.1:8000", lntest.WaitForAnswer); err != nil || got.String() != "192.0.2.2" {
		t.Errorf("the second port of a shifted range: %v, %v", got, err)
	}
	if got, err := l.ask("tcp", l.c, "10.11.0.1:4711", lntest.WaitForAnswer); err != nil || got.String() != "10.11.0.3" {
		t.Errorf("no client of the range: seen as %v, %v, want the host's own service", got, err)
	}
}

func TestConditionsByMany(t *testing.T) {
	t.Parallel()
	path := lntest.NewNetns(t)
	parallel(t, path, firewalls(t, 8), func(i int, f *Firewall) error {
		for range 5 {
			e := conditioned(i)
			if err := apply(t, f, firewall.Network{}, e); err != nil {
				return err
			}
			if err := f.Verify(t.Context(), firewall.Network{}, e); err != nil {
				return fmt.Errorf("after apply: %w", err)
			}
			if err := errors.Join(f.Remove(t.Context(), firewall.Endpoint{Owner: e.Owner}), f.RemoveNetwork(t.Context(), firewall.Network{Name: "n"})); err != nil {
				return err
			}
		}
		return nil
	})
	wantNoTables(t, path)
}

func TestWithoutNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := start(t)
	e := conditioned(1)
	_, err := f.Apply(t.Context(), firewall.Network{}, e)
	var refused *firewall.ConditionError
	if !errors.As(err, &refused) || errors.Is(err, firewall.ErrInvalid) || !strings.Contains(err.Error(), `"nft"`) {
		t.Errorf("got %v, want a ConditionError about nft", err)
	}
	wantTables(t, f, false, false)
	mustRemove(t, f, e)
}
