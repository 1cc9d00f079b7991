package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A port of the host leads to no service of a network that nothing comes into, or that is asked
// by its containers' own addresses.
func TestServicePublishedRefused(t *testing.T) {
	for says, extra := range map[string]map[string]any{
		"internal": {"internal": true, "isGateway": true, "gatewayMode": nil},
		"routed":   {"gatewayMode": "routed"},
	} {
		l := newServicesLab(t, extra)
		l.add("b1", "web")
		out, err := l.tryLnctl("service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80", "--publish", "8000")
		if err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %v: %s", says, err, out)
		}
		if out := l.lnctl("ipam", "ls", "net"); strings.Contains(out, "service.web") {
			t.Errorf("%s: an address is left: %s", says, out)
		}
	}
}

// An address without a service, which a killed call left, is freed by each of several commands.
// That of a service which lives is freed by none of them, nor by release --force, which names the
// command that does.
func TestServiceLeftLease(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("b1", "web")
	create := []string{"service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080"}
	for name, free := range map[string]func(){
		"repair": func() { l.lnctl("repair") },
		"gc":     func() { l.lnctl("gc") },
		"GC": func() {
			l.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, l.conf, keys{"cni.dev/valid-attachments": []any{keys{"containerID": "b1", "ifname": "eth0"}}})})
		},
		"rm": func() { l.lnctl("service", "rm", "web", "--network", "net") },
		"create": func() {
			l.lnctl(create...)
			if out := l.lnctl("ipam", "ls", "net"); strings.Count(out, "service.web") != 2 {
				t.Errorf("create again: want one address of each family: %s", out)
			}
			l.lnctl("service", "rm", "web", "--network", "net")
		},
	} {
		before := l.snapshot()
		l.lnctl(create...)
		l.exec("/bin/sh", "-c", "nft delete table inet libnet-services; nft delete table bridge libnet-services; rm -r /run/libnet/services; for a in $("+
			program(t, "lnctl")+" --data-dir /run/leases ipam ls net | sed -n 's/^net *\\([^ ]*\\) *service.web.*/\\1/p'); do ip addr del $a dev br-net; done")
		if out := l.lnctl("ipam", "ls", "net"); strings.Count(out, "service.web") != 2 {
			t.Fatalf("%s: the addresses are not left: %s", name, out)
		}
		if name != "create" && name != "rm" {
			if out, err := l.tryLnctl("doctor"); err == nil || !strings.Contains(out, `held for service "web"`) {
				t.Errorf("doctor does not tell of the addresses: %s", out)
			}
		}
		free()
		l.same(before)
	}
	v4, _ := l.create()
	for _, do := range [][]string{{"repair"}, {"gc"}} {
		l.lnctl(do...)
	}
	for _, tt := range []struct{ args, says string }{
		{"ipam release net " + v4 + " --force", "lnctl service rm web --network net"},
		{"ipam release net " + v4, "lnctl service rm web --network net"},
	} {
		if out, err := l.tryLnctl(strings.Fields(tt.args)...); err == nil || !strings.Contains(out, tt.says) {
			t.Errorf("%s: %v: %s", tt.args, err, out)
		}
	}
	l.must(l.call("b1", "web").as("DEL"))
	if out, err := l.tryLnctl("network", "rm", "net"); err == nil || !strings.Contains(out, "lnctl service rm web --network net") {
		t.Errorf("network rm: %v: %s", err, out)
	}
	if out := l.lnctl("ipam", "ls", "net"); strings.Count(out, "service.web") != 2 {
		t.Errorf("the service lives, and its addresses are free: %s", out)
	}
}

// update finds what a create that was killed did not.
func TestServiceUpdateGathers(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	l.add("b1", "web")
	v4, _ := l.create()
	l.exec("rm", "-r", "/run/libnet/services/net/web/web/backends")
	l.lnctl("service", "update", "web", "--network", "net", "--affinity", "client")
	if got := l.ask("client", "tcp", v4, 80); got != "b1 saw 10.60.0.3" && got != "b1 saw 10.60.0.2" {
		t.Errorf("after update: %q", got)
	}
	if out, err := l.tryLnctl("doctor"); err != nil && strings.Contains(out, "service") {
		t.Errorf("doctor: %s", out)
	}
}

// A container of two services that goes while one of them is removed leaves no element.
func TestServiceLeavesTogether(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("stays", "stays")
	l.netns("b1")
	for round := range 20 {
		l.must(l.call("b1", "web").as("ADD"))
		for i := range 2 {
			l.lnctl("service", "create", fmt.Sprint("s", i), "--network", "net", "--select", "alias=web", "--port", fmt.Sprintf("%d:8080", 80+i))
		}
		removed := l.beginLnctl("service", "rm", "s0", "--network", "net")
		time.Sleep(time.Duration(round) * time.Millisecond / 2) // of the one before the other
		l.must(l.call("b1", "web").as("DEL"))
		if out, err := removed(); err != nil {
			t.Fatalf("rm: %v: %s", err, out)
		}
		for _, set := range []string{"set inet libnet-services self4", "map bridge libnet-services bridged4"} {
			if out := l.exec("nft", append([]string{"list"}, strings.Fields(set)...)...); strings.Contains(out, "elements") {
				t.Fatalf("round %d: left: %s", round, out)
			}
		}
		l.lnctl("service", "rm", "s1", "--network", "net")
	}
}
