package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/state"
)

// newKernelLab is a namesLab whose names the kernel answers for.
func newKernelLab(t testing.TB) *namesLab {
	t.Helper()
	lntest.NeedsRoot(t, "loads BPF programs")
	l := newNamesLab(t)
	l.responder = "bpf"
	return l
}

// Without any agent each container resolves those that it shares a network with, from the end
// of ADD to that of DEL; with br_netfilter and without.
func TestNamesInKernel(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newKernelLab(t)
			l.check(lntest.Sysctl("bridge/bridge-nf-call-iptables", netfilter))
			l.check(lntest.Sysctl("bridge/bridge-nf-call-ip6tables", netfilter))
			l.all()
			l.holds("after ADD", allTable)
			l.must(l.call("web", "front", 0).as("DEL"))
			l.must(l.call("db", "front", 0).as("DEL"))
			delete(l.at, "web/front")
			delete(l.at, "db/front")
			l.route(netnsPath("db"), "0.0.0.0/0", "10.70.2.1")
			l.holds("after DEL", lessTable)
			for _, asked := range l.outside {
				if strings.HasSuffix(asked, " db.") && !strings.HasPrefix(asked, "192.0.2.1") || strings.HasPrefix(asked, "10.70.3.") {
					t.Errorf("the server outside was asked: %s", asked)
				}
			}
		})
	}
}

// Beside an agent the kernel goes on when that is killed, and the agent answers what the kernel
// does not.
func TestNamesInKernelAndAgent(t *testing.T) {
	l := newKernelLab(t)
	l.startAgent()
	l.all()
	l.captured()
	l.holds("after ADD", allTable)
	for name, want := range map[string]string{"nothing.libnet.internal": "nxdomain", "_80._tcp.db": "0"} {
		q := query{from: "web", name: name}
		if strings.HasPrefix(name, "_") {
			q.qtype = 33 // SRV, whose answer begins with the priority
		}
		if got := l.answers(q); got != want {
			t.Errorf("%s, which the agent answers: %s, want %s", name, got, want)
		}
	}
	l.check(l.agent.cmd.Process.Kill())
	l.agent.done <- <-l.agent.done
	l.holds("after kill -9 of the agent", allTable)
}

// The kernel counts what it answers: lnctl and the agent tell.
func TestNamesInKernelCounted(t *testing.T) {
	l := newKernelLab(t)
	stats := func() string {
		out, err := exec.Command(program(t, "lnctl"), "names", "stats", "--json").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var c map[string]int
		l.check(json.Unmarshal(out, &c))
		return fmt.Sprint(c)
	}
	if got := stats(); got != "map[answered:0 foreign:0 nodata:0]" {
		t.Errorf("before an ADD: %s", got)
	}
	l.startAgent("--listen", "127.0.0.1:9468")
	l.join("web", "front")
	l.join("db", "front")
	for range 3 {
		l.answers(query{from: "web", name: "db"})
	}
	l.answers(query{from: "db", name: "web", qtype: dns.TypeMX})
	l.answers(query{from: "db", name: "outside.test"})
	l.answers(query{from: "db", name: "outside.test", network: "tcp"}) // which the kernel does not read
	if got := stats(); got != "map[answered:3 foreign:1 nodata:1]" {
		t.Errorf("counts: %s", got)
	}
	body, _ := (&agents{cluster: &cluster{host: l.host}}).getHere("/metrics")
	for outcome, want := range map[string]float64{"answered": 3, "nodata": 1, "foreign": 1} {
		if got := metric(body, fmt.Sprintf("libnet_names_kernel_queries_total{outcome=%q}", outcome)); got != want {
			t.Errorf("metric of %s: %v, want %v", outcome, got, want)
		}
	}
}

// No answer is the address of a container that is gone, and none is missing of one that is
// there.
func TestNamesInKernelAtOnce(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	for range 20 {
		if got := l.answers(query{from: "web", name: "late"}); got != "nxdomain" {
			t.Fatalf("before ADD: %s", got)
		}
		l.join("late", "front")
		if got, want := l.answers(query{from: "web", name: "late"}), l.address("late", "front", false); got != want {
			t.Errorf("after ADD: %s, want %s", got, want)
		}
		if got, want := l.answers(query{from: "late", name: "web", qtype: 28}), l.address("web", "front", true); got != want {
			t.Errorf("the new container asks: %s, want %s", got, want)
		}
		l.must(l.call("late", "front", 0).as("DEL"))
		if got := l.answers(query{from: "web", name: "late"}); got != "nxdomain" {
			t.Fatalf("after DEL: %s", got)
		}
	}
}

// Whatever server resolv.conf names, one on the same bridge too, the kernel answers first.
func TestNamesInKernelByAnyServer(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	l.join("db", "front", "back")
	for what, server := range map[string]string{
		"a server outside": worldAddr(false).String(), "the same by IPv6": worldAddr(true).String(),
		"a dead server": "203.0.113.99", "the gateway": "10.70.1.1", "the gateway by IPv6": "fd70:1::1",
		"another container": l.address("db", "front", false), "itself by the host": "192.0.2.1",
	} {
		for _, is6 := range []bool{false, true} {
			q := query{from: "web", server: server, name: "db", qtype: 1}
			if is6 {
				q.qtype = 28
			}
			if got, want := l.answers(q), l.address("db", "front", is6); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
	}
}

// Clients as they are, without an agent.
func TestNamesInKernelClients(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	l.join("db", "front", "back")
	l.resolvConf("search cluster.example svc.cluster.example", "nameserver "+worldAddr(false).String(), "options ndots:5")
	want := l.address("db", "front", false)
	for _, c := range [][]string{
		{"getent", "ahostsv4", "db"},
		{"getent", "ahosts", "db"},
		{"getent", "ahostsv4", "db.libnet.internal"},
		{"getent", "hosts", want},
		{"busybox", "nslookup", "db.libnet.internal"},
		{"busybox", "nslookup", "db.libnet.internal."},
		{"dig", "+short", "db"},
		{"dig", "+short", "+noedns", "DB.front"},
		{"dig", "+short", "+subnet=192.0.2.0/24", "+dnssec", "db"},
		{l.musl(), "db"},
	} {
		if out, err := l.tool(c...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v\n%s", c, err, out)
		}
	}
	if out, err := l.tool("dig", "+short", "-x", want); err != nil || strings.TrimSpace(out) != "db.libnet.internal." {
		t.Errorf("dig -x: %q %v", out, err)
	}
	got, err := (&net.Resolver{PreferGo: true, Dial: l.dials("web")}).LookupNetIP(t.Context(), "ip4", "db")
	if err != nil || len(got) != 1 || got[0].Unmap().String() != want {
		t.Errorf("Go: %v %v", got, err)
	}
	for _, name := range []string{"outside.test", "gateway"} {
		want := map[string]string{"outside.test": "203.0.113.7", "gateway": "10.70.1.1"}[name]
		if out, err := l.tool("getent", "ahostsv4", name); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := l.tool("dig", "+short", "+bufsize=512", "large.test"); err != nil || strings.Count(out, "203.0.113.") != 100 {
		t.Errorf("an external answer that needs TCP: %v\n%s", err, out)
	}
	// Checksums that the device does not complete.
	l.in(netnsPath("web"), func() { l.check(completeChecksums("eth0")) })
	for _, qtype := range []uint16{1, 28} {
		for _, server := range []string{worldAddr(false).String(), worldAddr(true).String()} {
			if got, want := l.answers(query{from: "web", server: server, name: "db", qtype: qtype}), l.address("db", "front", qtype == 28); got != want {
				t.Errorf("without offloads, by %s: %s, want %s", server, got, want)
			}
		}
	}
}

// An alias of several containers has the addresses of all, each first in turn, and none of one
// that is gone.
func TestNamesInKernelShared(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	conf := strings.TrimSuffix(l.namesConf("front", nil), "}") + `,"runtimeConfig":{"aliases":["api"]}}`
	add := func(i int, command string) reply {
		name := fmt.Sprint("api", i)
		return l.must(call{plugin: "bridge-ln", command: command, cid: name + "-0123456789ab", netns: netnsPath(name), ifName: "eth0", stdin: conf})
	}
	const many = 20
	want := map[string]bool{}
	for i := range many {
		l.netns(fmt.Sprint("api", i))
		for _, p := range parseResult(t, add(i, "ADD").stdout).addresses(t) {
			if p.Addr().Is4() {
				want[p.Addr().String()] = true
			}
		}
	}
	rotates := func() {
		t.Helper()
		got, first := map[string]bool{}, map[string]bool{}
		for range 4 * many {
			m, err := l.ask(query{from: "web", name: "api"})
			if err != nil || len(m.Answer) == 0 || len(m.Answer) > 8 {
				t.Fatalf("%v %v", m, err)
			}
			for i, rr := range m.Answer {
				a := strings.Fields(rr.String())[4]
				if got[a] = true; i == 0 {
					first[a] = true
				}
				if !want[a] {
					t.Fatalf("%s is no address of api", a)
				}
			}
		}
		if len(got) != len(want) || len(first) < len(want)*3/4 {
			t.Errorf("%d addresses of %d, %d of them first", len(got), len(want), len(first))
		}
	}
	rotates()
	for i := range many - 2 {
		gone := l.inside(fmt.Sprint("api", i))
		add(i, "DEL")
		delete(want, gone)
		if i%5 == 0 {
			rotates()
		}
	}
	rotates()
}

// completeChecksums has the kernel complete the checksums of what leaves by a link, as
// `ethtool -K tx off`.
func completeChecksums(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	value := struct{ command, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// inside is the IPv4 address that a container has.
func (l *namesLab) inside(name string) (addr string) {
	l.t.Helper()
	l.in(netnsPath(name), func() {
		link, err := net.InterfaceByName("eth0")
		l.check(err)
		addrs, err := link.Addrs()
		l.check(err)
		for _, a := range addrs {
			if ip := a.(*net.IPNet).IP.To4(); ip != nil {
				addr = ip.String()
			}
		}
	})
	return addr
}

// front returns the host's end of a container's link to the network front.
func (l *namesLab) front(name string) string {
	l.t.Helper()
	rec, err := state.New("").LoadEndpoint("front", l.call(name, "front", 0).cid, "eth0")
	l.check(err)
	return rec.HostName
}

// CHECK and the doctor find all that is gone, and repair puts it back; what a lost record left is named
// and removed.
func TestNamesInKernelHeal(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	l.join("db", "front")
	works := func(is bool) {
		t.Helper()
		if got, want := l.answers(query{from: "web", name: "db"}), l.address("db", "front", false); (got == want) != is {
			t.Errorf("db is %s; it is to be answered: %v", got, is)
		}
	}
	works(true)
	prev := l.must(l.call("web", "front", 0).as("ADD")).stdout // settled
	works(true)
	check := l.call("web", "front", 0).as("CHECK")
	check.stdin = l.namesConf("front", map[string]any{"prevResult": json.RawMessage(prev)})
	l.must(check)
	l.must(call{plugin: "bridge-ln", command: "STATUS", stdin: l.namesConf("front", nil)})
	l.exec("tc", "qdisc", "del", "dev", l.front("web"), "clsact")
	works(false)
	if r := l.run(check); r.code == 0 || !strings.Contains(r.msg, "filter") {
		t.Errorf("CHECK: %d %s", r.code, r.msg)
	}
	if out := l.doctor(); !strings.Contains(out, "filter") {
		t.Errorf("doctor says nothing of the filter: %s", out)
	}
	if out := l.exec(program(t, "lnctl"), "repair"); !strings.Contains(out, "names") {
		t.Errorf("repair says nothing of names: %s", out)
	}
	works(true)
	l.must(check)
	// A living container's record is written anew with its names, by which DEL finds them.
	l.check(os.Remove("/run/libnet/networks/front/endpoints/" + l.call("db", "", 0).cid + ":eth0.json"))
	l.exec(program(t, "lnctl"), "repair")
	works(true)
	l.must(l.call("db", "front", 0).as("DEL"))
	works(false)
	// A record that is lost leaves names: doctor says so, and repair or GC removes them.
	for _, remove := range []func(){
		func() { l.exec(program(t, "lnctl"), "repair") },
		func() {
			keep := []any{map[string]any{"containerID": l.call("web", "", 0).cid, "ifname": "eth0"}}
			l.must(call{plugin: "bridge-ln", command: "GC", stdin: l.namesConf("front", map[string]any{"cni.dev/valid-attachments": keep})})
		},
	} {
		l.join("db", "front")
		works(true)
		l.exec("ip", "link", "del", l.front("db"))
		l.check(os.RemoveAll("/run/libnet/networks/front/endpoints/" + l.call("db", "", 0).cid + ":eth0.json"))
		works(true)
		if out := l.doctor(); !strings.Contains(out, "name db for ") {
			t.Errorf("doctor says nothing of the names: %s", out)
		}
		remove()
		works(false)
		if out := l.doctor(); strings.Contains(out, "in the kernel, of no attachment") {
			t.Errorf("doctor still says: %s", out)
		}
		l.must(l.call("db", "front", 0).as("DEL"))
	}
}

// A container that gets other names has these, and not the old ones.
func TestNamesInKernelRename(t *testing.T) {
	l := newKernelLab(t)
	l.join("web", "front")
	l.rename()
}

// In a user namespace, where the names in the kernel may not be looked at, DEL and GC have
// nothing of them to remove.
func TestRemovalInUserNamespace(t *testing.T) {
	lntest.NeedsRoot(t, "a second user is not mapped")
	t.Parallel()
	h := newHost(t)
	data, err := os.ReadFile(program(t, "bridge-ln"))
	h.check(err)
	const copied, dir = "/run/bridge-ln", "/run/rootless"
	h.check(lntest.WriteProgram(copied, data))
	h.check(os.Mkdir(dir, 0o755))
	h.check(os.Chown(dir, 12345, 12345))
	h.check(os.Chmod("/sys/fs/bpf", 0o700))
	conf := `{"cniVersion":"1.1.0","name":"nd","type":"bridge-ln","bridge":"brnd","stateDir":"` + dir + `/state",
		"cni.dev/valid-attachments":[],"ipam":{"type":"ipam-ln","dataDir":"` + dir + `/leases","subnet":"10.77.0.0/24"}}`
	for _, verb := range []string{"DEL", "GC"} {
		cmd := exec.Command("unshare", "-U", "-r", "-n", "-m", copied)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=/run", "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(conf)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", verb, err, out)
		}
	}
}
