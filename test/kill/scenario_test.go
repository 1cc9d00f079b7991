package kill

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

const udpPort = 5300

var (
	gateway4 = netip.MustParseAddr("10.91.0.1")
	gateway6 = netip.MustParseAddr("fd91::1")
)

// The pool has five addresses of IPv4: the fifth that is lost is missed.
const (
	ipam  = `"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.91.0.0/29"}],[{"subnet":"fd91::/64"}]]}`
	ports = `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},
		{"hostPort":5300,"containerPort":53,"protocol":"udp"},{"hostPort":0,"containerPort":81,"protocol":"tcp"}]}`
	named = `{"cniVersion":"1.1.0","name":"kill",`
)

// scenario is a chain, and what the host is like.
type scenario struct {
	name  string
	chain []plugin
	// beside: another container stays in the network all the time.
	beside bool
	// second: a closed network, the first one, has a container on the same bridge.
	second bool
	// cold: the network does not exist before ADD, and GC removes it.
	cold bool
	// encrypted: the host has a key, and wireguard-go where the kernel has no WireGuard.
	encrypted bool
	// kernel: it loads BPF programs, which needs root of the host.
	kernel bool
	// service: both containers are behind one.
	service bool
}

func scenarios() []scenario {
	alone := []plugin{{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","gatewayMode":"nat",` + ipam + `,` + ports + `}`}}
	// It asks for what the first one does not, and does not for what that one does.
	second := []plugin{{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","gatewayMode":"nat","icc":false,` +
		strings.NewReplacer(`10.91.0.0/29"`, `10.91.0.0/29","rangeEnd":"10.91.0.5"`, `fd91::/64"`, `fd91::/64","rangeStart":"fd91::10"`).Replace(ipam) + `,` + ports + `}`}}
	chained := []plugin{
		{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","isDefaultGateway":true,"ipMasq":true,` + ipam + `}`},
		{"portmap-ln", named + `"type":"portmap-ln",` + ports + `}`},
	}
	conditioned := []plugin{chained[0], {"portmap-ln", named + `"type":"portmap-ln","conditionsV4":["ip","saddr","0.0.0.0/0"],"conditionsV6":["counter"],` + ports + `}`}}
	// A host whose block is as large as the pool above; the others are not there.
	spanning := []plugin{{"overlay-ln", named + `"type":"overlay-ln","bridge":"br-kill","nodes":[
		{"address":"192.0.2.1","subnet":["10.91.0.0/29","fd91::/64"]},{"address":"192.0.2.2","subnet":["10.92.0.0/24","fd92::/64"]},
		{"address":"192.0.2.3","subnet":["10.93.0.0/24","fd93::/64"]}],` + ports + `}`}}
	encrypted := []plugin{{"overlay-ln", strings.NewReplacer(
		`"subnet":["10.91`, `"publicKey":"`+publicKey+`","subnet":["10.91`,
		`"subnet":["10.92`, `"publicKey":"YMN97z41QIzNTrftaqmpqgRSgUM0i3llBIZeu2x2BW4=","subnet":["10.92`,
		`"subnet":["10.93`, `"publicKey":"ufeCr1RpV5tf6vM7DL005GMoOK7TBZEPIuPzTDp57Aw=","subnet":["10.93`,
		`"nodes":`, `"encryption":"wireguard","privateKeyFile":"`+keyFile+`","nodes":`).Replace(spanning[0].conf)}}
	answered := []plugin{{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","gatewayMode":"nat","names":{"responder":"bpf"},` + ipam + `,` + ports + `}`}}
	fast := []plugin{{"bridge-ln", strings.Replace(alone[0].conf, `"gatewayMode"`, `"fastPath":"auto","gatewayMode"`, 1)}}
	fastSpanning := []plugin{{"overlay-ln", strings.Replace(spanning[0].conf, `"nodes"`, `"fastPath":"auto","nodes"`, 1)}}
	aliased := []plugin{{"bridge-ln", named + `"type":"bridge-ln","bridge":"br-kill","gatewayMode":"nat","names":true,"args":{"cni":{"names":["web"]}},` +
		strings.Replace(ipam, "10.91.0.0/29", `10.91.0.0/29","rangeEnd":"10.91.0.6`, 1) + `,` + ports + `}`}}
	all := []scenario{
		{name: "bridge-ln", chain: alone},
		{name: "bridge-ln beside another", chain: alone, beside: true},
		{name: "bridge-ln cold", chain: alone, cold: true},
		{name: "bridge-ln beside another network", chain: second, second: true},
		{name: "bridge-ln beside another network cold", chain: second, second: true, cold: true},
		{name: "bridge-ln behind a service", chain: aliased, beside: true, service: true},
		{name: "overlay-ln", chain: spanning},
		{name: "overlay-ln cold", chain: spanning, cold: true},
		{name: "bridge-ln and portmap-ln", chain: chained},
		{name: "bridge-ln and portmap-ln cold", chain: chained, cold: true},
		{name: "bridge-ln and portmap-ln with conditions", chain: conditioned},
		{name: "bridge-ln and portmap-ln with conditions cold", chain: conditioned, cold: true},
		{name: "overlay-ln encrypted", chain: encrypted, encrypted: true},
		{name: "bridge-ln with names in the kernel", chain: answered, kernel: true},
		{name: "bridge-ln with names in the kernel beside another", chain: answered, kernel: true, beside: true},
		{name: "bridge-ln with names in the kernel cold", chain: answered, kernel: true, cold: true},
	}
	all = append(all,
		scenario{name: "bridge-ln with the fast path", chain: fast, kernel: true},
		scenario{name: "bridge-ln with the fast path cold", chain: fast, kernel: true, cold: true},
		scenario{name: "overlay-ln with the fast path cold", chain: fastSpanning, kernel: true, cold: true})
	if wireguard.Supported() == nil { // the device of wireguard-go would come again after each GC
		all = append(all, scenario{name: "overlay-ln encrypted cold", chain: encrypted, encrypted: true, cold: true})
	}
	return all
}

// The key pair of an encrypted network.
const (
	keyFile    = "/run/key"
	privateKey = "kHhU52Z38GjrPXtHfys0+Ol6K+5HQcaz3Itj5DottHw="
	publicKey  = "pW95u9HriZYjurz5vFQxHNSX351BCQBjhge4QSxNgD0="
)

// withKey writes the host's key, and has ln-agent run wireguard-go, where that is needed.
func (b *bench) withKey() {
	b.t.Helper()
	b.check(os.WriteFile(keyFile, []byte(privateKey+"\n"), 0o600))
	if wireguard.Supported() == nil {
		return
	}
	const confs = "/run/confs"
	conf := b.chainOf()[0].conf
	b.check(os.Mkdir(confs, 0o700))
	b.check(os.WriteFile(confs+"/kill.conf", []byte(conf), 0o600))
	// A child of the shell's, not of this thread: the tracer waits until that has none. It ends
	// by itself should this process be killed.
	out, err := exec.Command("sh", "-c", "timeout 2h "+program(b.t, "ln-agent")+" wireguard --conf-dir "+confs+" >/run/agent.log 2>&1 & echo $!").Output()
	b.check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	b.check(err)
	b.t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGTERM) })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r := b.run(b.chainOf()[0], call{command: "STATUS"}, conf, nil)
		if r.status.ExitStatus() == 0 {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("no wireguard-go: %+v", r)
		}
	}
}

// bench is a host on which points of a scenario are tried one by one.
type bench struct {
	*host
	scenario
	before snapshot
	closed *closedOne // nil: none
	bridge []string   // sysctls of the bridge after ADD
	bad    int
}

// newBench makes the host and takes the snapshot that all later ones must be
// equal to: of a cold network before all, else after a first container.
func newBench(t *testing.T, s scenario) *bench {
	t.Helper()
	if s.kernel {
		lntest.NeedsRoot(t, "loads BPF programs")
	}
	b := &bench{host: newHost(t, s.chain), scenario: s}
	if s.encrypted {
		b.withKey()
	}
	if s.second {
		b.closed = b.closedFirst()
	}
	if s.cold {
		b.before = b.snapshot()
	}
	if s.beside {
		_, err := b.withoutPorts().add(c0)
		b.check(err)
	}
	if s.service {
		out, err := exec.Command(program(b.t, "lnctl"), "service", "create", "web", "--network", "kill", "--select", "alias=web", "--port", "80:8080").CombinedOutput()
		if err != nil {
			t.Fatalf("lnctl service create: %v: %s", err, out)
		}
	}
	result, err := b.add(c1)
	b.check(err)
	b.check(b.checkAll(c1, result))
	b.bridge = b.bridgeSysctls()
	b.datagram()
	if flows := b.flows(); flows != 2 {
		t.Fatalf("conntrack has %d flows by the published port, want 2: the test could not see one that is left", flows)
	}
	b.check(b.restore(result))
	if s.cold {
		b.compare("a first container")
	} else {
		b.before = b.snapshot()
	}
	return b
}

// ready says what is missing of an attachment that ADD reported to be there.
func (b *bench) ready(result string) error {
	b.t.Helper()
	if diff := cmp.Diff(b.bridge, b.bridgeSysctls()); diff != "" {
		return fmt.Errorf("the bridge is not as an ADD makes it (-want +got):\n%s", diff)
	}
	return b.checkAll(c1, result)
}

func (b *bench) bridgeSysctls() []string {
	b.t.Helper()
	lines, err := sysctlLines()
	b.check(err)
	return slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, "/br-kill/") })
}

// withoutPorts is the host with a chain that publishes nothing: a neighbour
// cannot have the same ports.
func (b *bench) withoutPorts() *host {
	h := &host{t: b.t}
	for _, p := range b.chainOf() {
		h.chain = append(h.chain, plugin{p.name, strings.Replace(p.conf, ports, `"runtimeConfig":{}`, 1)})
	}
	return h
}

func (b *bench) chainOf() []plugin { return b.host.chain }

func (b *bench) flows() int {
	lines, err := conntrackLines()
	b.check(err)
	return len(lines)
}

// restore brings the host back by DEL, or, of a cold network, by GC.
func (b *bench) restore(result string) error {
	if b.cold {
		return b.collect()
	}
	return b.del(c1, result)
}

// maxBad is how many points may fail until the others are not tried any more.
const maxBad = 25

// compare holds the host against what it was before, and goes on from what it
// finds.
func (b *bench) compare(where string) {
	b.t.Helper()
	b.still(where)
	if now, same := b.sameAs(b.before, where); !same {
		b.before = now.without(func(line string) bool { return strings.HasPrefix(line, "flow ") }) // these end
	}
}

// sameAs holds the host against an earlier snapshot.
func (b *bench) sameAs(before snapshot, where string) (now snapshot, same bool) {
	b.t.Helper()
	now = b.snapshot()
	if b.cold {
		before, now = before.without(isKept), now.without(isKept)
	}
	if same = slices.Equal(before, now); !same {
		b.fail("%s: the host is not as before\n left:%s\n missing:%s", where, list(now.since(before)), list(before.since(now)))
	}
	return now, same
}

// list is lines for a message, not too many: a link has a hundred sysctls.
func list(lines []string) string {
	const most = 20
	out := ""
	for i, line := range lines {
		if i == most {
			return out + fmt.Sprintf("\n  and %d more", len(lines)-most)
		}
		out += fmt.Sprintf("\n  %.300s", line)
	}
	return out
}

// isKept says that a line of a snapshot is of what stays of a network that was
// removed: locks, and the last addresses given.
func isKept(line string) bool {
	file, is := strings.CutPrefix(line, "file ")
	return is && (strings.HasSuffix(file, "/lock") || strings.Contains(file, "/last_reserved_ip."))
}

func (b *bench) fail(format string, args ...any) {
	b.t.Helper()
	b.t.Errorf(format, args...)
	if b.bad++; b.bad == maxBad {
		b.t.Fatalf("%d points failed: the rest is not tried", b.bad)
	}
}

// step is the distance between the points that are tried: 1 with LIBNET_KILL=full,
// the number with a number, else few.
func step(t testing.TB, few int) int {
	t.Helper()
	switch env := os.Getenv("LIBNET_KILL"); env {
	case "":
		return few
	case "full":
		return 1
	default:
		n, err := strconv.Atoi(env)
		if err != nil || n < 1 {
			t.Fatalf(`LIBNET_KILL is %q: want "full", or a number to try every so many`, env)
		}
		return n
	}
}

// count is how many points were tried, and how many of these before or after a
// netlink message, or of a process that the plugin leaves.
type count struct{ points, netlink, children int }

func (c count) String() string {
	return fmt.Sprintf("%d points, of which %d at netlink messages and %d of a child", c.points, c.netlink, c.children)
}
