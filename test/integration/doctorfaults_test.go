package integration

import (
	"errors"
	"fmt"
	"github.com/libnet-cni/libnet/internal/lntest"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// patient is a host that doctor looks at: network "web" with containers c1, which
// publishes a port, and c2; a way out; configurations and plugins in directories of its
// own.
type patient struct {
	*host
	confs, bin string
	conf       string
	c1, c2     call
}

func newPatient(t *testing.T) patient {
	t.Helper()
	p := patient{host: newHost(t), confs: t.TempDir(), bin: t.TempDir()}
	for _, name := range []string{"bridge-ln", "overlay-ln", "ipam-ln", "portmap-ln"} {
		data, err := os.ReadFile(program(t, name))
		p.check(errors.Join(err, lntest.WriteProgram(filepath.Join(p.bin, name), data)))
	}
	p.world()
	p.conf = edit(t, `{"cniVersion":"1.0.0","name":"web","type":"bridge-ln","bridge":"ln0","isDefaultGateway":true,"gatewayMode":"nat","mtu":"auto",
		"capabilities":{"portMappings":true},"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.32.0.0/24"}],[{"subnet":"fd32::/64"}]]}}`, nil)
	p.file("10-web.conflist", list(p.conf))
	ports := edit(t, p.conf, keys{"runtimeConfig.portMappings": raw(`[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`)})
	p.c1, p.c2 = attachment("bridge-ln", "c1", p.netns("c1"), ports), attachment("bridge-ln", "c2", p.netns("c2"), p.conf)
	for _, c := range []call{p.c1, p.c2} {
		p.must(c.as("ADD"))
	}
	return p
}

// list is the file of a list that has one plugin.
func list(conf string) string {
	return `{"cniVersion":"1.0.0","name":"web","plugins":[` + conf + `]}`
}

// file writes a configuration.
func (p patient) file(name, text string) {
	p.t.Helper()
	p.check(os.WriteFile(filepath.Join(p.confs, name), []byte(text), 0o600))
}

func (p patient) sh(line string) {
	p.t.Helper()
	p.exec("sh", "-c", line)
}

// examine returns what doctor finds wrong, each with its advice, and what it says besides.
func (p patient) examine() (bad, well []string) {
	p.t.Helper()
	out, err := exec.Command(program(p.t, "lnctl"), "doctor", "--conf-dir", p.confs, "--bin-dir", p.bin).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("lnctl doctor: %v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	for i, line := range lines {
		if after, is := strings.CutPrefix(line, "✗ "); is {
			advice := strings.TrimSpace(lines[i+1])
			if len(advice) < len("→ see") || !strings.HasPrefix(advice, "→ ") {
				p.t.Errorf("no advice for %q", line)
			}
			bad = append(bad, strings.Join(strings.Fields(after), " ")+" "+advice)
		} else if after, is := strings.CutPrefix(line, "✓ "); is {
			well = append(well, strings.Join(strings.Fields(after), " "))
		}
	}
	if !strings.Contains(string(out), "attachments") {
		p.t.Fatalf("lnctl doctor: %s", out)
	}
	if (err != nil) != (len(bad) > 0) {
		p.t.Errorf("doctor: %v, %d findings", err, len(bad))
	}
	return bad, well
}

// hostEnd is the host's end of a container's link.
func (p patient) hostEnd(c string) string {
	p.t.Helper()
	links, err := netlink.LinkList()
	p.check(err)
	for _, l := range links {
		if l.Attrs().Alias == "libnet:web/"+c+"/eth0" {
			return l.Attrs().Name
		}
	}
	p.t.Fatalf("%s has no link", c)
	return ""
}

const inC1 = "nsenter --net=/run/netns/c1 "

// faults are what may be wrong with a host, what doctor says of it, and what it advises;
// nothing where it may be meant to be so.
var faults = map[string]struct {
	plant        func(p patient)
	says, advice string
}{
	"FORWARD drops": {func(p patient) { p.sh("iptables-nft -P FORWARD DROP") }, "other firewalls table ip filter, chain FORWARD: policy drop", "iptables -I FORWARD -i ln0 -j ACCEPT"},
	"FORWARD of the older iptables drops": {func(p patient) { p.sh("XTABLES_LOCKFILE=/run/xt.lock iptables-legacy -P FORWARD DROP") },
		"other firewalls table legacy ip filter, chain FORWARD: policy drop", "iptables-legacy -I FORWARD -i ln0 -j ACCEPT"},
	"another table drops": {func(p patient) {
		p.sh(`nft 'table inet hard { chain f { type filter hook forward priority 0; policy accept; iifname "ln0" drop; }; }'`)
	}, "other firewalls table inet hard, chain f: a rule is drop", "nft delete rule inet hard f handle"},
	"INPUT drops": {func(p patient) { p.sh("iptables-nft -P INPUT DROP") }, "host services table ip filter, chain INPUT: policy drop; no rule of it names ln0", ""},

	"the host does not forward":          {func(p patient) { p.sh("sysctl -qw net.ipv4.ip_forward=0") }, "forwarding IPv4 off; needed by network web", "net.ipv4.ip_forward=1"},
	"the host does not forward IPv6":     {func(p patient) { p.sh("sysctl -qw net.ipv6.conf.all.forwarding=0") }, "forwarding IPv6 off; needed by network web", "net.ipv6.conf.all.forwarding=1"},
	"the bridge does not forward":        {func(p patient) { p.sh("sysctl -qw net.ipv4.conf.ln0.forwarding=0") }, "off for ln0", "net/ipv4/conf/ln0/forwarding=1"},
	"no default route":                   {func(p patient) { p.sh("ip route del default") }, "way out IPv4 this host has no default route", ""},
	"the uplink takes less":              {func(p patient) { p.sh("ip link set uplink mtu 1300") }, "MTU", "restart"},
	"a more specific route":              {func(p patient) { p.sh("ip route add 10.32.0.128/25 via 192.0.2.2") }, "10.32.0.128/25", "ip route del"},
	"the host has a container's address": {func(p patient) { p.sh("ip addr add 10.32.0.2/32 dev lo") }, "10.32.0.2", "ip addr del 10.32.0.2/32 dev lo"},
	"localhost is not let through":       {func(p patient) { p.sh("sysctl -qw net.ipv4.conf.ln0.route_localnet=0") }, "route_localnet", "lnctl repair"},
	"a program of the host listens on the port": {func(p patient) {
		l, err := net.Listen("tcp4", ":8080")
		p.check(err)
		p.t.Cleanup(func() { _ = l.Close() })
	}, "8080", "stop"},

	"the bridge is gone":        {func(p patient) { p.sh("ip link del ln0") }, "bridges network \"web\"", "lnctl repair makes it anew"},
	"the bridge is down":        {func(p patient) { p.sh("ip link set ln0 down") }, "ln0", "lnctl repair"},
	"the bridge's MTU":          {func(p patient) { p.sh("ip link set ln0 mtu 1300") }, "MTU", "ip link set ln0 mtu 1400"},
	"the gateway's address":     {func(p patient) { p.sh("ip addr del 10.32.0.1/24 dev ln0") }, "10.32.0.1", "lnctl repair"},
	"no IPv6 on the bridge":     {func(p patient) { p.sh("sysctl -qw net.ipv6.conf.ln0.disable_ipv6=1") }, "disable_ipv6", "net.ipv6.conf.ln0.disable_ipv6=0"},
	"a link is down":            {func(p patient) { p.sh("ip link set " + p.hostEnd("c1") + " down") }, "is down", "repair"},
	"a link is off the bridge":  {func(p patient) { p.sh("ip link set " + p.hostEnd("c1") + " nomaster") }, "no port of bridge ln0", "lnctl repair"},
	"the MTU of a link":         {func(p patient) { p.sh("ip link set " + p.hostEnd("c1") + " mtu 1300") }, "MTU", "mtu 1400"},
	"an address in a container": {func(p patient) { p.sh(inC1 + "ip addr del 10.32.0.2/24 dev eth0") }, "10.32.0.2", "restart the container"},
	"a route in a container":    {func(p patient) { p.sh(inC1 + "ip route del default") }, "route 0.0.0.0/0", "restart the container"},
	"the link in a container":   {func(p patient) { p.sh(inC1 + "ip link set eth0 down") }, "eth0", "restart the container"},
	"a link without a container": {func(p patient) {
		p.sh("ip link add left0 type veth peer name left1; ip link set left0 alias libnet:web/dead/eth0")
	}, "left links", "ip link del left0"},

	"all rules flushed": {func(p patient) { p.sh("nft flush ruleset") }, "table inet libnet", "lnctl repair"},
	"an element":        {func(p patient) { p.sh(`nft 'delete element inet libnet masquerade4 { 10.32.0.2 . "ln0" }'`) }, "masquerade4", "lnctl repair"},
	"a chain":           {func(p patient) { p.sh("nft flush chain inet libnet closed") }, "closed", "lnctl repair"},
	"a map":             {func(p patient) { p.sh("nft flush map inet libnet anyport4") }, "anyport4", "lnctl repair"},

	"a lease":  {func(p patient) { p.lose("/var/lib/cni/networks/web/10.32.0.2") }, "10.32.0.2", "lnctl repair"},
	"the pool": {func(p patient) { p.lose("/var/lib/cni/networks/web") }, "/var/lib/cni/networks/web: no lease", "lnctl repair"},
	"a lease of another": {func(p patient) {
		p.check(os.WriteFile("/var/lib/cni/networks/web/10.32.0.2", []byte("other\neth0\n"), 0o600))
	}, "10.32.0.2", "repair"},
	"a lease of a container that never was": {func(p patient) {
		p.check(os.WriteFile("/var/lib/cni/networks/web/10.32.0.77", []byte("ghost\neth0\n"), 0o600))
	}, "left leases 10.32.0.77", "rm /var/lib/cni/networks/web/10.32.0.77"},
	"the pool cannot be written": {func(p patient) {
		p.sh("mount --bind /var/lib/cni/networks /var/lib/cni/networks && mount -o remount,bind,ro /var/lib/cni/networks")
	}, "read-only", "writable"},
	"the pool is nearly full": {func(p patient) { p.fill(10, 249) }, "address pool", "larger subnet"},
	"the pool is full":        {func(p patient) { p.fill(2, 254) }, "address pool", "larger subnet"},

	"a record is cut off":      {func(p patient) { p.cutOff(stateDir + "/networks/web/endpoints/c1*.json") }, "cannot be read and are set aside", "lnctl repair"},
	"a record is gone":         {func(p patient) { p.lose(stateDir + "/networks/web/endpoints/c1*.json") }, "c1 eth0 in network \"web\" has a link", "lnctl repair"},
	"the network's record":     {func(p patient) { p.lose(stateDir + "/networks/web/network.json") }, "network \"web\" has containers and no record", "lnctl repair"},
	"the state directory":      {func(p patient) { p.lose(stateDir) }, "has a link", "lnctl repair"},
	"a container that is gone": {func(p patient) { p.loseNetns("c2") }, "dead attachments c2", "lnctl gc"},

	"a misspelt key": {func(p patient) {
		p.file("10-web.conflist", list(strings.Replace(p.conf, `"gatewayMode"`, `"gatewaymod"`, 1)))
	}, "gatewaymod", "gatewayMode"},
	"two configurations with a subnet": {func(p patient) {
		p.file("20-other.conflist", strings.ReplaceAll(list(strings.Replace(p.conf, "ln0", "ln1", 1)), `"web"`, `"other"`))
	},
		"10.32.0.0/24", "another subnet"},
	"a configuration that is no JSON": {func(p patient) { p.file("20-other.conf", `{"name":"other","type":"bridge-ln",`) }, "20-other.conf", "JSON"},
	"another file comes first": {func(p patient) {
		p.file("05-old.conflist", strings.ReplaceAll(list(p.conf), "10.32.0.0/24", "10.33.0.0/24"))
	}, "05-old.conflist", "10-web.conflist"},
	"no configuration":           {func(p patient) { p.lose(p.confs + "/10-web.conflist") }, "no configuration", "--conf-dir"},
	"a plugin is missing":        {func(p patient) { p.lose(p.bin + "/ipam-ln") }, "ipam-ln", "install"},
	"a plugin is not executable": {func(p patient) { p.check(os.Chmod(p.bin+"/bridge-ln", 0o644)) }, "bridge-ln", "chmod"},
	"a plugin of another release": {func(p patient) {
		p.check(lntest.WriteProgram(p.bin+"/bridge-ln", []byte("#!/bin/sh\necho bridge-ln v0.0.1\n")))
	}, "bridge-ln", "v0.0.1"},
}

// fill has addresses held from first to last, as if by containers.
func (p patient) fill(first, last int) {
	p.t.Helper()
	for i := first; i <= last; i++ {
		path := fmt.Sprintf("/var/lib/cni/networks/web/10.32.0.%d", i)
		if _, err := os.Stat(path); err != nil {
			p.check(os.WriteFile(path, []byte("x\neth0\n"), 0o600))
		}
	}
}

// Each fault is found, with where it is and what to do.
func TestDoctorFindsFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			if bad, _ := p.examine(); len(bad) > 0 {
				t.Fatalf("before: %s", strings.Join(bad, "\n"))
			}
			fault.plant(p)
			bad, well := p.examine()
			if fault.advice == "" {
				bad = append(well, bad...)
			}
			for _, line := range bad {
				says, advice, _ := strings.Cut(line, " → ")
				if strings.Contains(says, fault.says) && strings.Contains(advice, fault.advice) {
					return
				}
			}
			t.Errorf("want %q → %q, got\n%s", fault.says, fault.advice, strings.Join(bad, "\n"))
		})
	}
}

// othersRules are of other programs that let ln0 through, and do not concern it.
const othersRules = `
table ip filter {
	chain DOCKER-USER { iifname "ln0" accept; oifname "ln0" accept; return; }
	chain DOCKER-ISOLATION-STAGE-2 { oifname "docker0" drop; return; }
	chain DOCKER-ISOLATION-STAGE-1 { iifname "docker0" oifname != "docker0" jump DOCKER-ISOLATION-STAGE-2; return; }
	chain DOCKER { iifname != "docker0" oifname "docker0" drop; }
	chain FORWARD { type filter hook forward priority 0; policy drop;
		jump DOCKER-USER; jump DOCKER-ISOLATION-STAGE-1; oifname "docker0" ct state established,related accept;
		oifname "docker0" jump DOCKER; iifname "docker0" accept; }
	chain INPUT { type filter hook input priority 0; policy accept; ip saddr 172.17.0.0/16 tcp dport 22 drop; }
}
table ip raw { chain PREROUTING { type filter hook prerouting priority -300; policy accept; ip daddr 172.17.0.2 iifname != "docker0" drop; } }
table ip kube-proxy {
	map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.9 . tcp . 80 : goto reject-chain } }
	set nodeport-ips { type ipv4_addr; elements = { 192.0.2.1 } }
	chain reject-chain { reject; }
	chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
	chain cluster-ips-check { ip daddr 10.96.0.0/12 reject; }
	chain filter-forward { type filter hook forward priority -110; policy accept; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
	chain filter-input { type filter hook input priority -110; policy accept; ct state new jump service-endpoints-check; }
}
table inet firewalld {
	chain filter_FORWARD_POLICIES { iifname "ln0" accept; oifname "ln0" accept; iifname "uplink" reject with icmpx admin-prohibited; }
	chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established,related accept; ct status dnat accept; iifname "lo" accept;
		ct state invalid drop; ip6 daddr { ::/96, 2002::/24 } reject; jump filter_FORWARD_POLICIES; reject with icmpx admin-prohibited; }
	chain filter_INPUT { type filter hook input priority 10; policy accept; ct state established,related accept; iifname "lo" accept; iifname "ln0" accept;
		iifname "uplink" tcp dport 22 accept; reject with icmpx admin-prohibited; }
}
`

// On a healthy host nothing is found, whatever rules and configurations others have.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.file("87-podman-bridge.conflist", `{"cniVersion":"0.4.0","name":"podman","plugins":[{"type":"bridge","bridge":"cni-podman0","isGateway":true,"ipMasq":true,
		"ipam":{"type":"host-local","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}]]}},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"firewall"},{"type":"tuning"}]}`)
	p.file("99-loopback.conf", `{"cniVersion":"0.4.0","name":"lo","type":"loopback"}`)
	p.file("README", "no configuration")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.NewReplacer("; }", ";\n}\n", "{ ", "{\n").Replace(othersRules))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	if bad, _ := p.examine(); len(bad) > 0 {
		t.Errorf("found:\n%s", strings.Join(bad, "\n"))
	}
	p.ping(netnsPath("c1"), worldAddr(false))
}

// healthy says that doctor finds nothing at an example with two containers. That the way
// out takes less than the containers send holds for most.
func (w *walk) healthy() {
	w.t.Helper()
	confs := w.t.TempDir()
	w.check(os.WriteFile(filepath.Join(confs, "10.conflist"), []byte(w.conf), 0o600))
	bin, _ := dirs(w.t)
	bad, _ := patient{host: w.host, confs: confs, bin: bin}.examine()
	for _, line := range bad {
		if !strings.Contains(line, "the host's default route takes") && !strings.Contains(line, "asks for host-local, which is not in "+bin) {
			w.t.Errorf("doctor finds: %s", line)
		}
	}
}
