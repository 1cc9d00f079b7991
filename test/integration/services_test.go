package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Which address a container behind a service sees of its client. From outside a service
// without a published port is not reached.
//
//	client     the address of the client itself
//	gateway    that of the host on the network
//	-          no answer
const clientTable = `
client:      other-container  the-container-itself  host     outside
tcp4         client           gateway               gateway  -
tcp6         client           gateway               gateway  -
udp4         client           gateway               gateway  -
udp6         client           gateway               gateway  -
`

// withAndWithoutNetfilter runs a test with br_netfilter off and on, on a host with the container
// "back", which has the alias web, and "client".
func withAndWithoutNetfilter(t *testing.T, fn func(*testing.T, *servicesLab)) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+netfilter, func(t *testing.T) {
			l := newServicesLab(t, nil)
			l.check(lntest.Sysctl("bridge/bridge-nf-call-iptables", netfilter))
			l.check(lntest.Sysctl("bridge/bridge-nf-call-ip6tables", netfilter))
			l.add("back", "web")
			l.add("client", "client")
			fn(t, l)
		})
	}
}

func TestServiceClientAddress(t *testing.T) {
	withAndWithoutNetfilter(t, func(t *testing.T, l *servicesLab) {
		v4, v6 := l.create()
		l.route(netnsPath("world"), "10.60.0.0/24", hostAddr(false).String())
		l.route(netnsPath("world"), "fd60::/64", hostAddr(true).String())
		lines := strings.Split(strings.TrimSpace(clientTable), "\n")
		for _, line := range lines[1:] {
			cells := strings.Fields(line)
			vip, gateway, own := v4, "10.60.0.1", "10.60.0.3"
			if strings.HasSuffix(cells[0], "6") {
				vip, gateway, own = v6, "fd60::1", "fd60::3"
			}
			for i, from := range []string{"client", "back", "", "world"} {
				want := map[string]string{"client": "back saw " + own, "gateway": "back saw " + gateway}[cells[i+1]]
				got := l.ask(from, cells[0][:3], vip, 80)
				if want == "" && strings.HasPrefix(got, "error") {
					continue
				}
				if got != want {
					t.Errorf("%s from %q: %q, want %q", cells[0], from, got, want)
				}
			}
		}
		for _, direct := range []string{"10.60.0.2", "fd60::2"} { // beside the service
			if got := l.ask("client", "tcp", direct, 8080); !strings.HasPrefix(got, "back saw ") {
				t.Errorf("%s itself: %q", direct, got)
			}
		}
		if out := l.lnctl("doctor"); !strings.Contains(out, "services") {
			t.Errorf("doctor:\n%s", out)
		}
	})
}

// Backends come with ADD and go with DEL; the last one gone, a client is refused at once.
// Nothing is left of a service that is removed.
func TestServiceLife(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	before := l.snapshot()
	v4, _ := l.create()
	asks := func(n int) map[string]int {
		got := map[string]int{}
		for range n {
			name, _, _ := strings.Cut(l.ask("client", "tcp", v4, 80), " saw")
			got[name]++
		}
		return got
	}
	if got := l.ask("client", "tcp", v4, 80); !strings.Contains(got, "refused") {
		t.Errorf("without containers: %q, want that it is refused", got)
	}
	l.add("b1", "web")
	if got := asks(5); got["b1"] != 5 {
		t.Errorf("with b1: %v", got)
	}
	l.add("b2", "WEB")
	if got := asks(60); got["b1"] < 10 || got["b2"] < 10 || got["b1"]+got["b2"] != 60 {
		t.Errorf("with b1 and b2: %v", got)
	}
	l.lnctl("service", "drain", "web", "b1", "--network", "net")
	if got := asks(20); got["b2"] != 20 {
		t.Errorf("b1 drained: %v", got)
	}
	l.lnctl("service", "drain", "web", "b1", "--network", "net", "--undo")
	if got := asks(60); got["b1"] == 0 {
		t.Errorf("b1 not drained any more: %v", got)
	}
	shown := l.lnctl("service", "inspect", "web", "--network", "net")
	for _, want := range []string{v4, "80:8080/tcp", "b1", "b2", "weight 1"} {
		if !strings.Contains(shown, want) {
			t.Errorf("inspect does not tell of %s:\n%s", want, shown)
		}
	}
	l.must(l.call("b1", "web").as("DEL"))
	if got := asks(10); got["b2"] != 10 {
		t.Errorf("after DEL of b1: %v", got)
	}
	l.must(l.call("b2", "web").as("DEL"))
	if got := l.ask("client", "tcp", v4, 80); !strings.Contains(got, "refused") {
		t.Errorf("after DEL of all: %q, want that it is refused", got)
	}
	if out, err := l.tryLnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80"); err == nil {
		t.Errorf("the same service again: %s", out)
	}
	l.lnctl("service", "rm", "web", "--network", "net")
	l.same(before)
}

// A service that is made when its containers are there has them as backends; one container
// may be behind several services, and the others keep it when one goes.
func TestServicesOfOneContainer(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	l.add("b1", "web")
	var vips []string
	for i := range 3 {
		out := l.lnctl("service", "create", fmt.Sprint("s", i), "--network", "net", "--select", "alias=web", "--port", fmt.Sprintf("%d:8080", 80+i))
		v4, _, _ := strings.Cut(out, ",")
		vips = append(vips, v4)
	}
	for i := range 3 {
		for j := i; j < 3; j++ {
			for _, from := range []string{"client", "b1", ""} { // b1 itself, as well
				if got := l.ask(from, "tcp", vips[j], 80+j); !strings.HasPrefix(got, "b1 saw") {
					t.Errorf("%d services removed, s%d from %q: %q", i, j, from, got)
				}
			}
		}
		l.lnctl("service", "rm", fmt.Sprint("s", i), "--network", "net")
	}
}

// All that is flushed or changed is named by doctor and put right by repair, STATUS and, for a
// flush of all, the next ADD to a service.
func TestServiceHeals(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	l.add("b1", "web")
	v4, _ := l.create("--publish", "8000:80")
	works := func(after string) {
		t.Helper()
		if got := l.ask("client", "tcp", v4, 80); got != "b1 saw 10.60.0.2" {
			t.Errorf("%s: %q", after, got)
		}
		if got := l.ask("", "tcp", "127.0.0.1", 8000); got != "b1 saw 10.60.0.1" {
			t.Errorf("%s: at 127.0.0.1: %q", after, got)
		}
		if out, err := l.tryLnctl("doctor"); err != nil && strings.Contains(out, "service") {
			t.Errorf("%s: doctor: %s", after, out)
		}
	}
	works("at first")
	damages := map[string]string{
		"all rules": "nft flush ruleset",
		"the table": "nft delete table inet libnet-services",
		"the table, beside what a killed create left": "mkdir -p /run/libnet/services/net/web/killed && nft delete table inet libnet-services",
		"a chain":      "nft flush chain inet libnet-services services",
		"buckets":      "nft flush map inet libnet-services spread4",
		"the frames":   "nft flush map bridge libnet-services bridged4",
		"the address":  "ip addr del " + v4 + "/32 dev br-net",
		"the backends": "rm -r /run/libnet/services/net/web/web/backends",
		"the claim":    "nft delete element inet libnet anyport4 '{ tcp . 8000 }'",
		"the ports":    "rm -r /run/libnet/portmap",
		"localhost":    "sysctl -q net.ipv4.conf.br-net.route_localnet=0",
		"a stray":      "nft add element inet libnet-services self4 '{ 10.60.0.77 . 10.60.0.77 }'",
		"another MAC":  "nft delete element bridge libnet-services bridged4 '{ 10.60.0.3 . tcp . 8080 }' && nft add element bridge libnet-services bridged4 '{ 10.60.0.3 . tcp . 8080 : 02:00:00:00:00:99 }'",
	}
	for name, damage := range damages {
		l.exec("/bin/sh", "-c", damage)
		out, err := l.tryLnctl("doctor")
		if err == nil || !strings.Contains(out, "service") {
			t.Errorf("%s: doctor says nothing: %s", name, out)
		}
		l.lnctl("repair")
		works(name + " repaired")
	}
	l.exec("nft", "flush", "ruleset")
	l.must(l.call("client", "client").as("STATUS"))
	works("flushed, STATUS")
	l.exec("nft", "delete", "table", "inet", "libnet-services")
	l.add("b2", "web")
	l.must(l.call("b2", "web").as("DEL"))
	works("deleted, ADD and DEL of another container")
}

// Of several calls that make a service of one name one succeeds, and its address stays leased.
func TestServiceCreateAtOnce(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("b1", "web")
	for round := range 8 {
		script := "for i in 1 2 3 4; do " + program(t, "lnctl") + " service create web --network net --select alias=web --port 80:8080 2>&1 & done; wait"
		out := l.exec("/bin/sh", "-c", script)
		if n := strings.Count(out, "exists"); n != 3 {
			t.Errorf("round %d: %d of 4 were refused, want 3: %s", round, n, out)
		}
		if out := l.lnctl("ipam", "ls", "net"); !strings.Contains(out, "service.web") {
			t.Fatalf("round %d: the address is leased no more: %s", round, out)
		}
		l.lnctl("service", "rm", "web", "--network", "net")
	}
}

func TestServiceRefused(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("b1", "web")
	for _, tt := range []struct{ args, says string }{
		{"service create web --network net --select web --port 80", "--select"},
		{"service create web --network net --select alias=web", "port"},
		{"service create web --network net --select alias=web --port 80:0", "80:0"},
		{"service create web --network net --select alias=web --port 80 --port 80:81/tcp", "twice"},
		{"service create web --network net --select alias=web --port 80 --affinity some", "affinity"},
		{"service create web --network net --select alias=web --port 80 --vip 10.61.0.9", "10.60.0.0/24"},
		{"service create web --network net --select alias=web --port 80 --vip 10.60.0.2", "10.60.0.2"},
		{"service create ../x --network net --select alias=web --port 80", "name"},
		{"service create WEB --network net --select alias=web --port 80", `"web"`},
		{"service create gateway --network net --select alias=web --port 80", "leads to the host in DNS"},
		{"service create Host.lan --network net --select alias=web --port 80", "leads to the host in DNS"},
		{"service create tasks.web --network net --select alias=web --port 80", "tells the containers of a service"},
		{"service create web.prod --network net --select alias=web --port 80", "without dots"},
		{"service create web- --network net --select alias=web --port 80", "letters, digits"},
		{"service create web --network net --select alias=web --port 80 --publish 8080:81", "no port 81/tcp"},
		{"service create web --network net --select alias=web --port 80 --port 81 --publish 8080", "8080:SERVICEPORT/tcp"},
		{"service create web --network net --select alias=web --port 80 --publish 8080/sctp", "sctp"},
		{"service create web --network net --select alias=web --port 80 --publish 80:8080:80", "HOSTIP"},
		{"service create web --network net --select alias=web --port 80 --publish [::1]:80", "::1"},
		{"service create web --network net --select alias=web --port 80 --publish 8080:80 --publish 8080:80", "twice"},
		{"service create web --network net --select alias=web --vip none --publish 8080:80 --port 80", "--vip none"},
		{"service create web --network other --select alias=web --port 80", "other"},
		{"service create web --select alias=web --port 80", "--network"},
		{"service inspect web --network net", "no such service"},
		{"service rm web --network net", "no such service"},
		{"service drain web b1 --network net", "no such service"},
	} {
		out, err := l.tryLnctl(strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(out, tt.says) {
			t.Errorf("lnctl %s: %v: %q, want %q", tt.args, err, out, tt.says)
		}
	}
	if out := l.lnctl("service", "ls"); strings.Contains(out, "web") {
		t.Errorf("left: %s", out)
	}
}

// On an internal network, whose containers have no default route, a service is reached, too;
// a network whose host takes no part, or which has rules in iptables, can have none.
func TestServiceByKindOfNetwork(t *testing.T) {
	for name, tt := range map[string]struct {
		extra   map[string]any
		refused string
	}{
		"internal":   {map[string]any{"internal": true, "isGateway": true, "gatewayMode": nil}, ""},
		"routed":     {map[string]any{"gatewayMode": "routed"}, ""},
		"isolated":   {map[string]any{"gatewayMode": "isolated"}, "isGateway"},
		"iptables":   {map[string]any{"backend": "iptables"}, "nftables"},
		"no gateway": {map[string]any{"gatewayMode": nil, "isGateway": false}, "isGateway"},
		"no names":   {map[string]any{"names": nil}, `"names": true`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newServicesLab(t, tt.extra)
			l.add("client", "client")
			l.add("b1", "web")
			out, err := l.tryLnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080")
			if tt.refused != "" {
				if err == nil || !strings.Contains(out, tt.refused) {
					t.Errorf("create: %v: %q, want %q", err, out, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatalf("create: %v: %s", err, out)
			}
			for _, vip := range strings.Split(out, ",") {
				if got := l.ask("client", "tcp", vip, 80); !strings.HasPrefix(got, "b1 saw ") {
					t.Errorf("%s: %q", vip, got)
				}
			}
		})
	}
}
