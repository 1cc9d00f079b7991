package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/libnet-cni/libnet/internal/firewall/admit"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/state"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }

// lab is a node with three pods on bridge br0, and a host outside. The test's own namespace is the
// node:
//
//	a 10.10.0.2, fd10::2 ─ pa ┐
//	b 10.10.0.3, fd10::3 ─ pb ─ br0 node out ─ 192.0.2.2, fd20::2
//	c 10.10.0.4, fd10::4 ─ pc ┘
type lab struct {
	t     testing.TB
	e     *Enforcer
	host  string
	paths map[string]string
}

const port = 4711

func newLab(t testing.TB) *lab {
	t.Helper()
	lntest.Isolate(t)
	l := &lab{t: t, host: fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), paths: map[string]string{}}
	l.must(lntest.NoDAD())
	l.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	l.must(lntest.Up("br0", "10.10.0.1/24", "fd10::1/64"))
	for i, name := range []string{"a", "b", "c"} {
		l.wire(name, "p"+name, []string{fmt.Sprintf("10.10.0.%d/24", i+2), fmt.Sprintf("fd10::%d/64", i+2)}, "10.10.0.1", "fd10::1")
		lntest.Plug(t, "p"+name, "br0")
		link, err := netlink.LinkByName("p" + name)
		l.must(err)
		l.must(netlink.LinkSetGroup(link, admit.PortGroup))
	}
	l.wire("out", "out", []string{"192.0.2.2/24", "fd20::2/64"}, "192.0.2.1", "fd20::1")
	l.must(lntest.Up("out", "192.0.2.1/24", "fd20::1/64"))
	l.must(lntest.Sysctl("ipv4/ip_forward", "1"))
	l.must(lntest.Sysctl("ipv6/conf/all/forwarding", "1"))
	for _, path := range l.paths {
		lntest.Serve(t, path, port)
		lntest.Serve(t, path, port+1)
	}
	l.e = newEnforcer(t)
	return l
}

func newEnforcer(t testing.TB) *Enforcer {
	e := New(Config{Node: "m1", StateDirs: []string{t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { _ = e.tables.Close() })
	for _, kind := range append([]string{"records in " + e.conf.StateDirs[0]}, kinds...) {
		e.Synced(kind)
	}
	return e
}

func (l *lab) wire(name, link string, cidrs []string, gateways ...string) {
	l.t.Helper()
	l.paths[name] = lntest.NewNetns(l.t)
	lntest.Wire(l.t, link, l.paths[name], func() error { return errors.Join(lntest.Up("eth0", cidrs...), lntest.Via(gateways...)) })
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// number is the last of a pod's addresses.
func number(pod string) int { return int(pod[0]-'a') + 2 }

// apiPod is a pod as the API has it; without addresses it has just been made.
func apiPod(ns, name, uid string, addrs ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(uid), Labels: map[string]string{"pod": name}}, Spec: corev1.PodSpec{NodeName: "m1"}}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "main", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}}
	return p
}

// record is that of a pod's attachment.
func (l *lab) record(ns, pod, uid string) {
	at := place{"pods", "id-" + pod + uid, "eth0"}
	rec := &state.Endpoint{Network: at.network, ContainerID: at.container, IfName: "eth0", Phase: state.PhaseLeased, Bridge: "br0", HostName: "p" + pod, Workload: ns + "/" + pod, PodUID: uid,
		Addresses: []state.Address{{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.10.0.%d/24", number(pod))), Gateway: netip.MustParseAddr("10.10.0.1")},
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd10::%d/64", number(pod))), Gateway: netip.MustParseAddr("fd10::1")}}}
	l.e.locked(func() bool { return l.e.record(at, rec) })
}

// unrecord has the attachment of pod a gone.
func (l *lab) unrecord(uid string) {
	l.e.locked(func() bool { return l.e.record(place{"pods", "id-a" + uid, "eth0"}, nil) })
}

// cluster has namespace x with pods a and b, and y with c, all on this node.
func (l *lab) cluster() {
	for _, ns := range []string{"x", "y"} {
		l.e.Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"ns": ns}}}, false)
	}
	for _, pod := range []string{"x/a", "x/b", "y/c"} {
		ns, name, _ := strings.Cut(pod, "/")
		l.e.Pod(apiPod(ns, name, "1"), false)
		l.record(ns, name, "1")
	}
	l.apply()
}

func (l *lab) apply() {
	l.t.Helper()
	l.must(l.e.bring(context.Background()))
}

func policyOf(t testing.TB, ns, name, spec string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if err := json.Unmarshal([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// policy has one of namespace x in force.
func (l *lab) policy(name, spec string) {
	l.t.Helper()
	l.e.Policy(policyOf(l.t, "x", name, spec), spec == "{}")
	l.apply()
}

func (l *lab) address(name, network string) string {
	is6 := strings.HasSuffix(network, "6")
	switch {
	case name == "out" && is6:
		return "fd20::2"
	case name == "out":
		return "192.0.2.2"
	case is6:
		return fmt.Sprintf("fd10::%d", number(name))
	}
	return fmt.Sprintf("10.10.0.%d", number(name))
}

// ask is nil if a server answers.
func (l *lab) ask(from, to, network string, port int) error {
	patience := lntest.WaitForAnswer
	path := l.paths[from]
	if from == "node" {
		path = l.host
	}
	_, err := lntest.Ask(l.t, path, network[:3], net.JoinHostPort(l.address(to, network), fmt.Sprint(port)), patience)
	return err
}

func (l *lab) reaches(from, to string) {
	l.t.Helper()
	for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
		if err := l.ask(from, to, network, port); err != nil {
			l.t.Errorf("%s does not reach %s by %s: %v", from, to, network, err)
		}
	}
}

func (l *lab) blocked(from, to string, ports ...int) {
	l.t.Helper()
	for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
		for _, p := range append(ports, port)[:max(len(ports), 1)] {
			path := l.paths[from]
			if _, err := lntest.Ask(l.t, path, network[:3], net.JoinHostPort(l.address(to, network), fmt.Sprint(p)), lntest.WaitForNone); err == nil {
				l.t.Errorf("%s reaches %s by %s port %d", from, to, network, p)
			}
		}
	}
}

// both runs a test with br_netfilter and without: policies hold in either case.
func both(t *testing.T, run func(t *testing.T, l *lab)) {
	for _, on := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+on, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			for _, name := range []string{"iptables", "ip6tables"} {
				if err := lntest.Sysctl("bridge/bridge-nf-call-"+name, on); err != nil && on == "1" {
					t.Skip("this kernel has no br_netfilter")
				}
			}
			run(t, l)
		})
	}
}

// Packets between pods of a bridge, from outside, to outside and from the node pass or not as
// policies say.
func TestPackets(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		l.cluster()
		for _, from := range []string{"a", "b", "c", "out"} {
			l.reaches(from, map[bool]string{true: "b", false: "a"}[from == "a"])
		}
		l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}},"policyTypes":["Ingress"]}`)
		for _, from := range []string{"b", "c", "out"} {
			l.blocked(from, "a")
		}
		l.reaches("node", "a")
		l.reaches("a", "a")
		l.reaches("a", "b")
		l.reaches("a", "out")
		l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`)
		l.reaches("b", "a")
		l.blocked("c", "a")
		l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}],"ports":[{"port":4711},{"port":4711,"protocol":"UDP"}]}]}`)
		l.reaches("c", "a")
		l.blocked("c", "a", port+1)
		l.blocked("b", "a")
		l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.10.0.4/32"]}},{"ipBlock":{"cidr":"::/0","except":["fd10::4/128"]}}],"ports":[{"port":4700,"endPort":4711},{"port":4700,"endPort":4711,"protocol":"UDP"}]}]}`)
		l.reaches("out", "a")
		l.reaches("b", "a")
		l.blocked("c", "a")
		l.blocked("out", "a", port+1)
		l.policy("deny", "{}")
		l.policy("out", `{"podSelector":{"matchLabels":{"pod":"a"}},"policyTypes":["Egress"],"egress":[{"to":[{"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`)
		l.reaches("a", "b")
		l.blocked("a", "c")
		l.blocked("a", "out")
		l.reaches("c", "a")
		l.policy("out", `{"podSelector":{},"policyTypes":["Egress","Ingress"],"egress":[{"ports":[{"port":"main"}]}],"ingress":[{}]}`)
		if err := l.ask("a", "b", "tcp4", port); err != nil {
			t.Error("by the name of its port:", err)
		}
		l.blocked("a", "b", port+1)
		l.policy("out", "{}")
		l.reaches("a", "c")
	})
}

// echo answers each line of TCP, and each datagram, with itself.
func (l *lab) echo(pod string, port int) {
	l.t.Helper()
	l.must(lntest.In(l.t, l.paths[pod], func() error {
		tcp, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _ = tcp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c) }()
			}
		}()
		return nil
	}))
}

// A connection ends when a policy forbids it, in both directions, and goes on when that is gone.
func TestEstablished(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		l.cluster()
		l.echo("a", port+2)
		for _, from := range []string{"b", "out"} {
			for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
				to := port
				if network[:3] == "tcp" {
					to = port + 2
				}
				var c net.Conn
				l.must(lntest.In(t, l.paths[from], func() (err error) {
					c, err = lntest.Dial(network[:3], net.JoinHostPort(l.address("a", network), fmt.Sprint(to)), lntest.WaitForAnswer)
					return err
				}))
				exchange := func(patience time.Duration) error {
					_, err := lntest.Exchange(c, "x", patience)
					return err
				}
				for _, policy := range []string{`{"podSelector":{"matchLabels":{"pod":"a"}}}`, `{"podSelector":{},"egress":[{"ports":[{"port":1}]}]}`} {
					if err := exchange(lntest.WaitForAnswer); err != nil {
						t.Errorf("%s by %s, before: %v", from, network, err)
					}
					l.policy("deny", policy)
					if err := exchange(lntest.WaitForNone); err == nil {
						t.Errorf("%s by %s goes on while it is forbidden by %s", from, network, policy)
					}
					l.policy("deny", "{}")
				}
				if err := exchange(lntest.WaitForAnswer); err != nil {
					t.Errorf("%s by %s, afterwards: %v", from, network, err)
				}
				_ = c.Close()
			}
		}
	})
}

// A pod of a namespace with policies is closed until it is known, also where another pod had its
// address, or its name, a moment ago; one of another namespace need not be known.
func TestStart(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		l.e.Policy(policyOf(t, "x", "open", `{"podSelector":{},"ingress":[{}]}`), false)
		l.cluster()
		l.reaches("b", "a")
		group := func(group int) {
			link, err := netlink.LinkByName("pa")
			l.must(err)
			l.must(netlink.LinkSetGroup(link, group))
		}
		group(0x6c6e676f) // as GC does before it removes it
		l.blocked("b", "a")
		l.blocked("a", "b")
		group(admit.PortGroup)
		l.reaches("b", "a")
		l.unrecord("1")
		l.apply()
		l.blocked("b", "a") // its port is closed, whatever is known of its address
		l.blocked("a", "b")
		l.blocked("a", "out")
		l.record("x", "a", "2") // ADD of the next pod of that name
		l.apply()
		l.blocked("b", "a")
		l.e.Pod(apiPod("x", "a", "1"), true)
		l.e.Pod(apiPod("x", "a", "2"), false)
		l.apply()
		l.reaches("b", "a")
		l.unrecord("2")
		l.record("z", "a", "3") // of a namespace without policies: the API may say so later
		l.apply()
		l.reaches("b", "a")
		l.reaches("a", "out")
	})
}

// Rules stay while no agent runs, and the next one takes them over in one step; what another program
// removes is written anew.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	l.e = newEnforcer(t)
	l.e.missing["pods"] = true // the API is away
	l.apply()
	l.blocked("b", "a")
	l.e.Synced("pods")
	l.e.Policy(policyOf(t, "x", "deny", `{"podSelector":{"matchLabels":{"pod":"b"}}}`), false)
	l.cluster()
	l.reaches("b", "a")
	l.blocked("a", "b")
	check(t, l.e.tables.Drop(context.Background()))
	l.apply()
	l.blocked("a", "b")
	was, err := Remove(context.Background(), t.TempDir())
	if !was || err != nil {
		t.Errorf("Remove: %v, %v", was, err)
	}
	l.reaches("a", "b")
}

// Elements that another program removes, adds or changes are found, and written anew.
func TestElementsOfOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.policy("some", `{"podSelector":{"matchLabels":{"pod":"a"}},"policyTypes":["Ingress","Egress"],"ingress":[
		{"from":[{"podSelector":{"matchLabels":{"pod":"c"}}}],"ports":[{"port":"main"},{"protocol":"UDP","port":1000,"endPort":2000}]},
		{"from":[{"ipBlock":{"cidr":"192.0.2.0/24","except":["192.0.2.7/32","192.0.2.128/25"]}},{"ipBlock":{"cidr":"fd20::/64"}},{"ipBlock":{"cidr":"192.0.2.7/32"}}]}]}`)
	l.cluster()
	for _, damage := range []string{
		"flush map inet libnet-policy in4", "flush set inet libnet-policy judged4", "flush map inet libnet-policy blocks6", "flush set bridge libnet-policy open",
		"delete element inet libnet-policy in4 { 10.10.0.2 }", "add element inet libnet-policy pods4 { 10.10.0.99 }",
	} {
		same, err := l.e.asWritten(context.Background())
		if check(t, err); !same {
			t.Errorf("before %s: elements differ", damage)
		}
		l.blocked("b", "a")
		lntest.Run(t, "nft", damage)
		if same, err = l.e.asWritten(context.Background()); same || err != nil {
			t.Errorf("after %s: same %v, %v", damage, same, err)
		}
		l.e.damaged()
		l.apply()
	}
	l.blocked("b", "a")
	l.reaches("out", "a")
}

// Changes that come one after the other leave no damage in the kernel that no comparison notices.
func TestElementsOfOthersWhileChanging(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	ctx := context.Background()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- lntest.In(t, l.host, func() (err error) {
			for i := 0; err == nil; i++ {
				select {
				case <-stop:
					return nil
				default:
				}
				l.e.Policy(policyOf(t, "x", "other", fmt.Sprintf(`{"podSelector":{"matchLabels":{"pod":"b"}},"ingress":[{"ports":[{"port":%d}]}]}`, 1+i%1000)), false)
				err = l.e.bring(ctx)
			}
			return err
		})
	}()
	for range 20 {
		lntest.Run(t, "nft", "flush set inet libnet-policy judged4")
		for l.e.compareOnce(ctx) {
		}
	}
	close(stop)
	l.must(<-done)
	l.apply()
	l.blocked("b", "a")
}

// A kernel that does not answer for long does not keep elements from being compared for very long.
func TestPauseAfter(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{time.Millisecond: time.Second, 100 * time.Millisecond: 2 * time.Second, 13 * time.Second: 30 * time.Second, time.Hour: 30 * time.Second} {
		if got := pauseAfter(took); got != want {
			t.Errorf("after %s: %s, want %s", took, got, want)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
