package enforce

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/lntest"
	lnnetlink "github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
)

// While devices cannot be read, the kernel stays as it is, and an error says so.
func TestDevicesUnread(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	open := l.e.links
	l.e.links = func() (*lnnetlink.Conn, error) { return nil, unix.EMFILE }
	l.e.Policy(policyOf(t, "x", "deny", "{}"), true)
	if err := l.e.bring(context.Background()); err == nil || l.e.Err() == nil {
		t.Errorf("no error: %v, %v", err, l.e.Err())
	}
	l.reaches("b", "c")
	l.blocked("b", "a")
	l.e.links = open
	l.apply()
	l.reaches("b", "a")
}

// noBridgeNetfilter has frames between ports of a bridge be seen by the rules of the bridge alone.
func (l *lab) noBridgeNetfilter() {
	for _, name := range []string{"iptables", "ip6tables"} {
		if err := lntest.Sysctl("bridge/bridge-nf-call-"+name, "0"); !errors.Is(err, os.ErrNotExist) {
			l.must(err)
		}
	}
}

// Ports that an older release made, of no group, are judged as others.
func TestPortsOfNoGroup(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.noBridgeNetfilter()
	for _, name := range []string{"pa", "pb", "pc"} {
		link, err := netlink.LinkByName(name)
		l.must(err)
		l.must(netlink.LinkSetGroup(link, 0))
	}
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	l.blocked("b", "a")
	l.reaches("b", "c")
}

// A bridge that lacks its gateway address is told of, and found when it has it again.
func TestGatewayMissing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.noBridgeNetfilter()
	br, err := netlink.LinkByName("br0")
	l.must(err)
	gateway, err := netlink.ParseAddr("10.10.0.1/24")
	l.must(err)
	l.must(netlink.AddrDel(br, gateway))
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	if err := l.e.Err(); err == nil || !strings.Contains(err.Error(), "gateway address 10.10.0.1") || !l.e.lacksAny() {
		t.Errorf("of the missing gateway: %v", err)
	}
	l.must(netlink.AddrAdd(br, gateway))
	l.apply()
	if err := l.e.Err(); err != nil {
		t.Error(err)
	}
	l.blocked("b", "a")
	l.must(state.New(l.e.conf.StateDirs[0]).SaveNetwork(state.Network{Name: "pods", Driver: "bridge", Config: []byte(`{"Gateway":false}`)}))
	l.must(netlink.AddrDel(br, gateway))
	for _, pod := range []string{"x/a", "x/b", "y/c"} { // another router is their gateway
		ns, name, _ := strings.Cut(pod, "/")
		l.record(ns, name, "1")
	}
	l.apply()
	if err := l.e.Err(); err != nil {
		t.Error(err)
	}
}

// On a node without tables, ports that are there when the agent starts stay open until all is known,
// and later ones are closed.
func TestEarly(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.e.missing["networkpolicies"] = true // the API is away
	l.e.missing["records in "+l.e.conf.StateDirs[0]] = true
	l.record("x", "a", "1")
	l.record("x", "b", "1")
	l.apply()
	l.reaches("c", "a") // records are not read yet
	l.e.Synced("records in " + l.e.conf.StateDirs[0])
	l.apply()
	l.reaches("a", "b")
	l.reaches("out", "a")
	l.record("y", "c", "1")
	l.apply()
	l.blocked("c", "a")
	check(t, l.e.tables.Drop(context.Background()))
	l.apply()
	l.blocked("c", "a")
	l.reaches("a", "b")
	l.e.Synced("networkpolicies")
	l.e.Policy(policyOf(t, "x", "deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`), false)
	l.cluster()
	l.reaches("c", "b")
	l.blocked("b", "a")
	same, err := l.e.asWritten(context.Background())
	if check(t, err); !same {
		t.Error("elements differ")
	}
}

// Nothing is refused in the subnet of a bridge, which may be a LAN; in blocks of this node what has no
// record is, and in the subnet of an overlay network while it has pods here.
func TestHomes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	link, err := netlink.LinkByName("pc")
	l.must(err)
	l.must(netlink.LinkSetGroup(link, 0)) // no container, but a host of the LAN
	l.record("x", "a", "1")
	l.apply()
	l.reaches("out", "a")
	l.reaches("out", "c")
	l.e.Blocks([]netip.Prefix{netip.MustParsePrefix("10.10.0.1/24"), netip.MustParsePrefix("fd10::/64")})
	l.apply()
	l.reaches("out", "a")
	l.blocked("out", "c")
	l.e.Blocks(nil)
	l.apply()
	l.reaches("out", "c")
	l.must(state.New(l.e.conf.StateDirs[0]).SaveNetwork(state.Network{Name: "pods", Driver: "overlay", Config: []byte(`{"Gateway":true}`)}))
	l.record("x", "a", "2")
	l.unrecord("1")
	l.apply()
	l.reaches("out", "a")
	l.blocked("out", "c")
	l.unrecord("2")
	l.apply()
	l.reaches("out", "c")
}

// A rule that another program adds is found, and goes; what we write ourselves is compared, and stays.
func TestRulesOfOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	inspect := func() (write, compare bool) {
		select {
		case <-l.e.dirty:
		default:
		}
		l.e.events <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_ = l.e.inspect(ctx)
		select {
		case <-l.e.removed:
			compare = true
		default:
		}
		return len(l.e.dirty) > 0, compare
	}
	if write, compare := inspect(); write || !compare {
		t.Errorf("of ours: write %v, compare %v", write, compare)
	}
	lntest.Run(t, "nft", "insert rule inet libnet-policy forward accept")
	if write, compare := inspect(); !write || !compare {
		t.Errorf("of another program: write %v, compare %v", write, compare)
	}
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	l.blocked("out", "a")
	if write, _ := inspect(); write {
		t.Error("the rule is still there")
	}
}

// Our own changes have nothing be looked at, those of another program do.
func TestOwnChangesAreNoNews(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	other := func(line string) func() error {
		return func() error { return exec.Command("nft", line).Run() }
	}
	bring := func() error { return l.e.bring(t.Context()) }
	for _, tt := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"a policy comes", func() error { l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`); return nil }, false},
		{"all is written anew", func() error { l.e.damaged(); return bring() }, false},
		{"another's element comes", other("add element inet libnet-policy pods4 { 10.10.0.99 }"), true},
		{"an element goes", other("delete element inet libnet-policy in4 { 10.10.0.2 }"), true},
		{"after that all is written anew", func() error { l.e.damaged(); return bring() }, false},
		{"all goes", other("flush ruleset"), true},
	} {
		w, err := nft.WatchTable(admit.TableName, true, l.e.tables.Wrote)
		check(t, err)
		patience := 2 * lntest.WaitForAnswer
		if !tt.want {
			patience = lntest.WaitForNone
		}
		if got := lntest.Tells(t, w, tt.do, patience); got != tt.want {
			t.Errorf("%s: told of it %t, want %t", tt.name, got, tt.want)
		}
	}
}
