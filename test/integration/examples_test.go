package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/lntest"
)

const examples = "../../conf/examples"

// example is how a file of conf/examples differs from what holds for most.
type example struct {
	isolated bool   // containers must not reach each other
	layer2   bool   // no addresses
	closed   bool   // the world must not be reached, whatever routes say
	capArgs  string // CAP_ARGS for the first container
	address  string // that the first container must have
	mac      string
	mtu      int    // of the containers
	publish  string // where the first container's port 80 is, "host" or "container"; empty: nowhere
	agent    bool   // ln-agent and etcd are there
	key      string // private key of the host, which has wireguard-go where the kernel has no WireGuard; empty: none
	foreign  string // what plugins of others leave behind
	root     string // why it needs root of the host; empty: it does not
	below    bool   // templates and defaults lie beside the file
}

// web is CAP_ARGS that publish port 80 as 18080.
const web = `{"portMappings":[{"hostPort":18080,"containerPort":80,"protocol":"tcp"}]}`

var special = map[string]example{
	"10-single-host":      {mtu: worldMTU},
	"30-internal":         {closed: true},
	"31-no-icc":           {isolated: true},
	"32-layer2":           {layer2: true},
	"33-chosen-addresses": {capArgs: `{"ips":["10.38.0.77/24"],"mac":"02:00:00:12:34:56"}`, address: "10.38.0.77/24", mac: "02:00:00:12:34:56"},
	"34-address-keys":     {address: "10.40.0.4/22"},
	"60-nat":              {capArgs: web, publish: "host"},
	"61-nat-dual-stack":   {capArgs: web, publish: "host"},
	"62-routed":           {capArgs: web, publish: "container"},
	"70-overlay":          {capArgs: web, publish: "host", mtu: worldMTU - 50},
	"71-overlay-agent":    {agent: true, capArgs: web, publish: "host", mtu: worldMTU - 50},
	"72-names":            {capArgs: `{"aliases":["web"]}`},
	"74-names-kernel":     {capArgs: `{"aliases":["web"]}`, root: "loads BPF programs"},
	// wireguard-go has its device as long as there is a configuration.
	"73-overlay-encrypted":       {key: "YMN97z41QIzNTrftaqmpqgRSgUM0i3llBIZeu2x2BW4=", capArgs: web, publish: "host", mtu: worldMTU - 60, foreign: `^(link|addr) wg-|dev wg-`},
	"75-overlay-encrypted-agent": {agent: true, capArgs: web, publish: "host", mtu: worldMTU - 60, foreign: `^(link|addr) wg-|dev wg-`},
	// The reference bridge keeps its bridge, and tables for masquerading.
	"63-portmap-ln": {capArgs: web, publish: "host", foreign: `^(link|addr) ln-portmap |dev ln-portmap |^nft \d+ (cni_plugins_masquerade|nat)\b`},
	// The firewall plugin keeps its chains, in the tables of iptables.
	"52-nerdctl": {foreign: `^nft (2|10) (filter|nat)\b`},
}

// TestExamples runs every file of conf/examples through a container's life.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.conflist"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	names := map[string]bool{}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		names[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if reason := special[name].root; reason != "" {
				lntest.NeedsRoot(t, reason)
			}
			w := newWalk(t, file, special[name])
			w.run()
		})
	}
	for name := range special {
		if !names[name] {
			t.Errorf("there is no %s in %s", name, examples)
		}
	}
}

// TestCnitool runs networks of each family through the same life, for the
// versions that runtimes' configurations have today.
func TestCnitool(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for name, ranges := range map[string]string{
			"ipv4":       `[[{"subnet":"10.71.0.0/24"}]]`,
			"ipv6":       `[[{"subnet":"fd71::/64"}]]`,
			"dual-stack": `[[{"subnet":"10.71.0.0/24"}],[{"subnet":"fd71::/64"}]]`,
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(t.TempDir(), "net.conflist")
				conf := fmt.Sprintf(`{"cniVersion":%q,"name":"net","plugins":[{"type":"bridge-ln","bridge":"br0","isDefaultGateway":true,"ipMasq":true,
					"ipam":{"type":"ipam-ln","ranges":%s}}]}`, version, ranges)
				if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
					t.Fatal(err)
				}
				newWalk(t, file, example{}).run()
			})
		}
	}
}

// walk is the life of two containers on the network of one file.
type walk struct {
	*host
	example
	dir     string // where the file is
	conf    string // the list
	plugin  string // its first plugin's configuration, as libcni makes it
	first   string // that plugin's type
	name    string
	version string
	bridge  string
	masq    bool
	routed  bool // containers get a default route
	a, b    string
	got     map[string]result
}

func newWalk(t *testing.T, file string, ex example) *walk {
	h := newHost(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Name, CNIVersion string
		Plugins          []json.RawMessage
	}
	var first struct {
		Type                     string
		Bridge                   string
		IPMasq, IsDefaultGateway bool
		GatewayMode              any
		IPAM                     struct{ Routes []struct{ Dst string } }
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	if ex.below {
		h.below(filepath.Dir(file))
		list.Plugins[0] = h.completed(list.Plugins[0])
	}
	if err := json.Unmarshal(list.Plugins[0], &first); err != nil {
		t.Fatal(err)
	}
	w := &walk{host: h, example: ex, dir: filepath.Dir(file), conf: string(data), first: first.Type, name: list.Name, version: list.CNIVersion, bridge: first.Bridge, masq: first.IPMasq, got: map[string]result{}}
	w.routed = first.IsDefaultGateway || len(first.IPAM.Routes) > 0 || first.GatewayMode != nil
	w.masq = w.masq || strings.Contains(fmt.Sprint(first.GatewayMode), "nat")
	w.plugin = edit(t, string(list.Plugins[0]), map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
	return w
}

func (w *walk) run() {
	w.world()
	if w.encrypted() { // before ln-agent would start one that outlives it
		w.startWireGuard()
	}
	switch {
	case w.agent:
		w.startAgent()
	case w.encrypted():
		w.awaitReady(&tail{})
	}
	before := w.snapshot()
	w.a, w.b = w.netns("a"), w.netns("b")
	if w.version >= "1.1.0" {
		w.cnitool("status", w.a)
	}
	for _, ns := range []string{w.a, w.b} {
		out := w.cnitool("add", ns)
		w.got[ns] = parseResult(w.t, out)
		w.interfaces(ns)
	}
	w.chosen()
	w.reach()
	w.published()
	w.healthy()
	if w.version >= "0.4.0" {
		w.cnitool("check", w.a)
		w.cnitool("check", w.b)
	}
	for _, ns := range []string{w.a, w.b, w.a, w.b} {
		w.cnitool("del", ns)
	}
	w.nothingOfContainers(before)
	if w.version >= "1.1.0" {
		w.cnitool("gc", w.a)
		w.nothingOfContainers(before)
	}
	// With an empty list GC removes the network, too.
	w.must(call{plugin: w.first, command: "GC", stdin: edit(w.t, w.plugin, map[string]any{"cniVersion": "1.1.0", "cni.dev/valid-attachments": []string{}})})
	w.sameBut(before, w.foreign)
}

// startAgent starts etcd and ln-agent on the host, and waits until cnitool finds
// the network ready.
func (w *walk) startAgent() {
	w.t.Helper()
	etcd := lntest.NewEtcd(w.t, []string{"127.0.0.1"})[0]
	etcd.Start()
	cmd := exec.Command(program(w.t, "ln-agent"), "--conf-dir", w.alone(), "--node-name", "h1")
	log := &tail{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	w.check(cmd.Start())
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	w.awaitReady(log)
}

// awaitReady waits until STATUS is content.
func (w *walk) awaitReady(log *tail) {
	w.t.Helper()
	status := call{plugin: w.first, command: "STATUS", stdin: w.plugin}
	for end := time.Now().Add(agentPatience); ; time.Sleep(20 * time.Millisecond) {
		r := w.host.run(status)
		if r.code == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("STATUS: code %d, %s; ln-agent:\n%s", r.code, r.msg, log)
		}
	}
}

// alone is a directory with the file of this network alone: ln-agent would keep all others that
// are beside it.
func (w *walk) alone() string {
	w.t.Helper()
	dir := w.t.TempDir()
	w.check(os.WriteFile(filepath.Join(dir, "net.conflist"), []byte(w.conf), 0o600))
	return dir
}

// encrypted says that the network is.
func (w *walk) encrypted() bool { return strings.Contains(w.plugin, `"wireguard"`) }

// startWireGuard writes the host's key, if it is in a file, and starts ln-agent for the device.
func (w *walk) startWireGuard() {
	w.t.Helper()
	if w.key != "" {
		w.check(os.MkdirAll("/var/lib/libnet", 0o700))
		w.check(os.WriteFile("/var/lib/libnet/wireguard.key", []byte(w.key+"\n"), 0o600))
	}
	cmd := exec.Command(program(w.t, "ln-agent"), "wireguard", "--conf-dir", w.alone())
	log := &tail{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	w.check(cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("ln-agent wireguard:\n%s", log)
		}
	})
	lock := agent.UserspaceLockPath("/run/libnet")
	for end := time.Now().Add(agentPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(lock); err == nil {
			return
		}
	}
	w.t.Fatalf("no %s", lock)
}

// cnitool runs a command of cnitool and returns what it printed.
func (w *walk) cnitool(command, netns string) string {
	w.t.Helper()
	cmd := exec.Command(program(w.t, "cnitool"), command, w.name, netns)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=" + cniPath(w.t), "NETCONFPATH=" + w.dir}
	if w.capArgs != "" && netns == w.a {
		cmd.Env = append(cmd.Env, "CAP_ARGS="+w.capArgs)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("cnitool %s %s: %v\n%s%s", command, w.name, err, out, &stderr)
	}
	return string(out)
}

// interfaces holds the result against the container and the host.
func (w *walk) interfaces(ns string) {
	w.t.Helper()
	r := w.got[ns]
	if len(r.Interfaces) != 3 {
		w.t.Fatalf("result has interfaces %v, want bridge, host end, container end", r.Interfaces)
	}
	br, end, eth := r.Interfaces[0], r.Interfaces[1], r.Interfaces[2]
	if br.Name != w.bridge || br.Sandbox != "" || end.Sandbox != "" || eth.Name != "eth0" || eth.Sandbox != ns {
		w.t.Errorf("result has interfaces %v", r.Interfaces)
	}
	for i := range 2 {
		w.hasLink(r.Interfaces[i].Name, r.Interfaces[i].Mac, 0)
	}
	lntest.Enter(w.t, ns, func() {
		w.hasLink(eth.Name, eth.Mac, w.mtu)
		w.hasAddresses(r)
	})
	for i, ip := range r.IPs {
		if ip.Interface == nil || *ip.Interface != 2 {
			w.t.Errorf("result: ips[%d] is not of interface 2", i)
		}
	}
	if len(r.IPs) == 0 != w.layer2 {
		w.t.Errorf("result has ips %v", r.IPs)
	}
}

func (w *walk) hasLink(name, mac string, mtu int) {
	w.t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	a := l.Attrs()
	if a.HardwareAddr.String() != mac || a.Flags&net.FlagUp == 0 || mtu != 0 && a.MTU != mtu {
		w.t.Errorf("%s has MAC %s, MTU %d, flags %s; want MAC %s, MTU %d (0: any), up", name, a.HardwareAddr, a.MTU, a.Flags, mac, mtu)
	}
}

// hasAddresses says whether eth0 has the result's addresses, and no other but
// a link-local one beside IPv6.
func (h *host) hasAddresses(r result) {
	h.t.Helper()
	want := r.addresses(h.t)
	v4only := len(want) > 0 && !slices.ContainsFunc(want, func(p netip.Prefix) bool { return p.Addr().Is6() })
	for _, p := range linkAddresses(h.t, "eth0") {
		i := slices.Index(want, p)
		switch {
		case i >= 0:
			want = slices.Delete(want, i, i+1)
		case !p.Addr().IsLinkLocalUnicast():
			h.t.Errorf("eth0 has %s, which the result does not name", p)
		case v4only:
			h.t.Errorf("eth0 has %s on a network without IPv6", p)
		}
	}
	if len(want) > 0 {
		h.t.Errorf("eth0 lacks %v", want)
	}
}

func linkAddresses(t testing.TB, name string) []netip.Prefix {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var all []netip.Prefix
	for _, a := range addrs {
		all = append(all, netip.MustParsePrefix(a.IPNet.String()))
	}
	return all
}

func (w *walk) chosen() {
	r := w.got[w.a]
	if w.address != "" && (len(r.IPs) == 0 || r.IPs[0].Address != w.address) {
		w.t.Errorf("result has ips %v, want %s", r.IPs, w.address)
	}
	if mac := r.Interfaces[2].Mac; w.mac != "" && mac != w.mac {
		w.t.Errorf("result has MAC %s, want %s", mac, w.mac)
	}
}

// reach pings what must, and must not, be reached.
func (w *walk) reach() {
	if w.layer2 {
		w.reachLayer2()
		return
	}
	for i, ip := range w.got[w.b].IPs {
		addr := netip.MustParsePrefix(ip.Address).Addr()
		w.ping("", addr)
		if gw, err := netip.ParseAddr(ip.Gateway); err == nil {
			w.ping(w.a, gw)
		} else {
			w.t.Errorf("result: ips[%d] has no gateway", i)
		}
		switch {
		case w.isolated:
			w.noPing(w.a, addr)
		default:
			w.ping(w.a, addr)
		}
		w.reachWorld(addr.Is6(), ip.Gateway)
	}
}

// reachWorld pings a machine behind the host, which knows no way back to the
// containers but by masquerading.
func (w *walk) reachWorld(is6 bool, gateway string) {
	world := worldAddr(is6)
	switch {
	case w.closed:
		w.route(w.a, defaultRoute(is6), gateway)
		for _, p := range w.got[w.a].addresses(w.t) {
			w.route(netnsPath("world"), p.Masked().String(), hostAddr(is6).String())
		}
		w.noPing(w.a, world)
		w.noPing(netnsPath("world"), w.got[w.a].addresses(w.t)[0].Addr())
	case w.masq && w.routed:
		w.ping(w.a, world)
	}
}

// published says whether the world reaches the port that the first container
// publishes: one of the host, or its own.
func (w *walk) published() {
	if w.publish == "" {
		return
	}
	s := &script{host: w.host}
	s.serve("a", "80")
	for _, p := range w.got[w.a].addresses(w.t) {
		host, port := hostAddr(p.Addr().Is6()), "18080"
		if w.publish == "container" {
			w.route(netnsPath("world"), p.Masked().String(), host.String())
			host, port = p.Addr(), "80"
		}
		s.dial("world", net.JoinHostPort(host.String(), port), "a")
	}
}

func defaultRoute(is6 bool) string {
	if is6 {
		return "::/0"
	}
	return "0.0.0.0/0"
}

func (w *walk) reachLayer2() {
	for i, ns := range []string{w.a, w.b} {
		w.setAddress(ns, "eth0", fmt.Sprintf("10.99.0.%d/24", i+1))
	}
	w.ping(w.a, netip.MustParseAddr("10.99.0.2"))
}

// nothingOfContainers says what is left of the containers: all that may be
// there beyond before is the network's own, which names its bridge.
func (w *walk) nothingOfContainers(before snapshot) {
	w.t.Helper()
	own := fmt.Sprintf(`^(link|addr) %[1]s |dev %[1]s |^nft \d+ libnet( |$)|^file /run/libnet/networks/%[2]s/(network.json|layered) `, w.bridge, w.name)
	ofNetwork := "no owner"
	if w.first == "overlay-ln" { // the tunnel stays, as the bridge does, and is never without its rules
		own += `|^(link|addr) vx-|dev vx-`
		if w.encrypted() {
			own += `|^route \S+ via <nil> dev (0|lo) table 254$` // unreachable
		}
		ofNetwork = fmt.Sprintf("%q", "libnet:"+w.name+"/")
	}
	const ofAll = "nft 1 libnet set strict " // as long as there is a network with a tunnel
	rest := w.snapshot().since(before)
	for _, line := range rest {
		if strings.HasPrefix(line, "nft ") && strings.Contains(line, " element ") && !strings.Contains(line, "element "+w.bridge) && !strings.Contains(line, ofNetwork) && !strings.HasPrefix(line, ofAll) {
			w.t.Errorf("left behind: %s", line)
		}
	}
	w.sameBut(before, own+or(w.foreign))
}

func or(pattern string) string {
	if pattern == "" {
		return ""
	}
	return "|" + pattern
}
