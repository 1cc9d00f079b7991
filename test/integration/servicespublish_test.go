package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Which address a container behind a service sees of a client that asks at a published port of
// the host: by the address of its uplink, the gateway's, or 127.0.0.1 and ::1.
//
//	client     the address of the client itself
//	gateway    that of the host on the network
//	uplink     that of the host on its uplink
//	-          no answer
const publishedTable = `
client:       other-container  the-container-itself  host     outside
tcp4.uplink   client           gateway               uplink   client
tcp6.uplink   client           gateway               uplink   client
udp4.uplink   client           gateway               uplink   client
udp6.uplink   client           gateway               uplink   client
tcp4.gateway  client           gateway               gateway  client
tcp6.gateway  client           gateway               gateway  client
udp4.gateway  client           gateway               gateway  client
udp6.gateway  client           gateway               gateway  client
tcp4.lo       -                -                     gateway  -
udp4.lo       -                -                     gateway  -
tcp6.lo       -                -                     -        -
tcp4.vip      -                -                     -        -
udp6.vip      -                -                     -        -
`

func TestServicePublished(t *testing.T) {
	withAndWithoutNetfilter(t, func(t *testing.T, l *servicesLab) {
		before := l.snapshot()
		v4, v6 := l.create("--publish", "8000:80", "--publish", "8000:80/udp")
		l.route(netnsPath("world"), "10.60.0.0/24", hostAddr(false).String())
		l.route(netnsPath("world"), "fd60::/64", hostAddr(true).String())
		lines := strings.Split(strings.TrimSpace(publishedTable), "\n")
		for _, line := range lines[1:] {
			cells := strings.Fields(line)
			network, where, _ := strings.Cut(cells[0], ".")
			is6 := strings.HasSuffix(network, "6")
			gateway, own, world := "10.60.0.1", "10.60.0.3", worldAddr(false).String()
			at := map[string]string{"uplink": hostAddr(is6).String(), "gateway": gateway, "lo": "127.0.0.1", "vip": v4}[where]
			if is6 {
				gateway, own, world = "fd60::1", "fd60::3", worldAddr(true).String()
				at = map[string]string{"uplink": at, "gateway": gateway, "lo": "::1", "vip": v6}[where]
			}
			for i, from := range []string{"client", "back", "", "world"} {
				client := map[string]string{"client": own, "world": world}[from]
				want := map[string]string{"client": client, "gateway": gateway, "uplink": hostAddr(is6).String()}[cells[i+1]]
				got := l.ask(from, network[:3], at, 8000)
				if want == "" && strings.HasPrefix(got, "error") {
					continue
				}
				if got != "back saw "+want {
					t.Errorf("%s from %q: %q, want that back sees %q", cells[0], from, got, want)
				}
			}
		}
		if out := l.lnctl("service", "inspect", "web", "--network", "net"); !strings.Contains(out, "8000:80/udp") {
			t.Errorf("inspect: %s", out)
		}
		if out := l.lnctl("port", "ls"); !strings.Contains(out, "0.0.0.0:8000") || !strings.Contains(out, "lnctl service") {
			t.Errorf("port ls: %s", out)
		}
		if out, err := l.tryLnctl("doctor"); err != nil && strings.Contains(out, "service") {
			t.Errorf("doctor: %s", out)
		}
		l.lnctl("service", "rm", "web", "--network", "net")
		l.same(before)
		l.create("--publish", "8000:80", "--publish", "8000:80/udp")
		l.must(l.call("back", "web").as("DEL"))
		if got := l.ask("world", "tcp", hostAddr(false).String(), 8000); !strings.Contains(got, "refused") {
			t.Errorf("without containers: %q, want that it is refused", got)
		}
		l.must(l.call("back", "web").as("ADD"))
		if got := l.ask("world", "udp", hostAddr(true).String(), 8000); got != "back saw "+worldAddr(true).String() {
			t.Errorf("the container is back: %q", got)
		}
	})
}

// withPort is container b1, which publishes a port of the host.
func (l *servicesLab) withPort(hostIP string, port int) call {
	c := l.call("b1", "b1")
	mapping := keys{"hostPort": port, "containerPort": 8080, "protocol": "tcp"}
	if hostIP != "" {
		mapping["hostIP"] = hostIP
	}
	return c.with(edit(l.t, l.conf, keys{"capabilities": keys{"portMappings": true}, "runtimeConfig": keys{"portMappings": []any{mapping}}}))
}

// A port of the host is a container's or a service's: whichever asks second is refused, is told
// whose it is, and has changed nothing.
func TestServicePublishedConflicts(t *testing.T) {
	l := newServicesLab(t, nil)
	l.netns("b1")
	l.netns("other")
	for _, tt := range []struct {
		service, hostIP string
		port            int
		clash           bool
	}{
		{"8000:80", "", 8000, true},
		{"8000:80", "", 8001, false},
		{"8000:80/udp", "", 8000, false},
		{"8000:80", hostAddr(false).String(), 8000, true},
		{hostAddr(false).String() + ":8000:80", "", 8000, true},
		{hostAddr(false).String() + ":8000:80", hostAddr(false).String(), 8000, true},
		{hostAddr(false).String() + ":8000:80", "127.0.0.1", 8000, false},
		{"[" + hostAddr(true).String() + "]:8000:80", hostAddr(false).String(), 8000, false},
		{"[" + hostAddr(true).String() + "]:8000:80", "", 8000, true},
		{"0.0.0.0:8000:80", "::", 8000, false},
	} {
		args := []string{"service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080/tcp", "--port", "80:8080/udp", "--publish", tt.service}
		c := l.withPort(tt.hostIP, tt.port)
		l.must(l.call("other", "other").as("ADD")) // the network has a record
		before := l.snapshot()
		what := fmt.Sprintf("--publish %s and a container's %q %d", tt.service, tt.hostIP, tt.port)

		l.lnctl(args...)
		r := l.run(c.as("ADD"))
		if refused := r.code != 0; refused != tt.clash || refused && !strings.Contains(r.msg, `service "web"`) {
			t.Errorf("%s: ADD after create: code %d: %s", what, r.code, r.msg)
		}
		l.must(c.as("DEL"))
		l.lnctl("service", "rm", "web", "--network", "net")
		l.same(before)

		l.must(c.as("ADD"))
		out, err := l.tryLnctl(args...)
		if refused := err != nil; refused != tt.clash || refused && !strings.Contains(out, "b1/eth0") {
			t.Errorf("%s: create after ADD: %v: %s", what, err, out)
		}
		if !tt.clash {
			l.lnctl("service", "rm", "web", "--network", "net")
		}
		l.must(c.as("DEL"))
		l.same(before)
	}
}

// Of a container and a service that ask for one port of the host at once one gets it, and what
// is asked at the port answers.
func TestServicePublishedAtOnce(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("back", "web")
	l.serve("b1", l.netns("b1"))
	c := l.withPort("", 8000)
	before, won := l.snapshot(), map[bool]int{}
	for round := range 20 {
		made := l.beginLnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080", "--publish", "8000")
		time.Sleep(time.Duration(round) * time.Millisecond / 2) // of the one before the other
		r := l.run(c.as("ADD"))
		out, err := made()
		if (r.code == 0) == (err == nil) {
			t.Fatalf("round %d: ADD: code %d %s; create: %v %s; want that one of both fails", round, r.code, r.msg, err, out)
		}
		won[err == nil]++
		want := "back"
		if r.code == 0 {
			want = "b1"
		}
		if got := l.ask("world", "tcp", hostAddr(false).String(), 8000); !strings.HasPrefix(got, want+" saw") {
			t.Errorf("round %d: %q, want an answer of %s", round, got, want)
		}
		l.must(c.as("DEL"))
		if err == nil {
			l.lnctl("service", "rm", "web", "--network", "net")
		}
		l.same(before)
	}
	t.Logf("of 20 the service got %d, the container %d", won[true], won[false])
}

// The published ports of a service change while it is there; those that are given up others get.
func TestServicePublishedUpdate(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("back", "web")
	l.netns("b1")
	l.create("--publish", "8000:80", "--publish", "8001:80")
	answers := func(when string, port int, want bool) {
		t.Helper()
		if got := l.ask("world", "tcp", hostAddr(false).String(), port); strings.HasPrefix(got, "back saw") != want {
			t.Errorf("%s: port %d: %q", when, port, got)
		}
	}
	update := []string{"service", "update", "web", "--network", "net"}
	l.lnctl(append(update, "--publish", "8001:80", "--publish", "8002")...)
	answers("changed", 8000, false)
	answers("changed", 8001, true)
	answers("changed", 8002, true)
	l.must(l.withPort("", 8000).as("ADD"))
	for args, says := range map[string]string{"--publish 8000:80": "b1/eth0", "--publish 8000:81": "81", "--port 81:8080": "8001:80", "--publish [::1]:80": "::1"} {
		if out, err := l.tryLnctl(append(update, strings.Fields(args)...)...); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %v: %s, want %q", args, err, out, says)
		}
		answers("after what was refused: "+args, 8001, true)
	}
	if out, err := l.tryLnctl("doctor"); err != nil && strings.Contains(out, "service") {
		t.Errorf("doctor: %s", out)
	}
	l.lnctl(append(update, "--publish", "none")...)
	answers("none", 8001, false)
	answers("none", 8002, false)
	l.must(l.withPort("", 8000).as("DEL"))
	l.must(l.withPort("", 8001).as("ADD"))
}

// 127.0.0.1 leads to a service again after the bridge was lost, and a container has come with another
// one.
func TestServicePublishedLocalhostAgain(t *testing.T) {
	t.Parallel()
	l := newServicesLab(t, nil)
	l.add("back", "web")
	l.create("--publish", "8000:80", "--publish", "8000:80/udp")
	for i := range 2 {
		for _, network := range []string{"tcp", "udp"} {
			if got := l.ask("", network, "127.0.0.1", 8000); got != "back saw 10.60.0.1" {
				t.Errorf("%s, container %d: %q", network, i, got)
			}
		}
		l.must(l.call("back", "web").as("DEL"))
		l.exec("ip", "link", "del", "br-net")
		l.must(l.call("back", "web").as("ADD"))
	}
	if out, err := l.tryLnctl("doctor"); err != nil && strings.Contains(out, "service") {
		t.Errorf("doctor: %s", out)
	}
}
