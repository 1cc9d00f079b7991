package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// countsOf are the connections of each container, and those of all ports, as inspect tells.
func countsOf(t testing.TB, inspected string) (byContainer map[string]int, ports int) {
	t.Helper()
	var s struct {
		Ports    []struct{ Connections int }
		Backends []struct {
			Container   string
			Connections int
		}
	}
	if err := json.Unmarshal([]byte(inspected), &s); err != nil {
		t.Fatalf("%v: %s", err, inspected)
	}
	byContainer = map[string]int{}
	for _, b := range s.Backends {
		byContainer[b.Container] = b.Connections
	}
	for _, p := range s.Ports {
		ports += p.Connections
	}
	return byContainer, ports
}

// Connections are counted by the container that they are led to, whichever way they come; those of
// a container do not begin anew as others come, change and go.
func TestServiceCounts(t *testing.T) {
	t.Parallel()
	l := newServicesLab(t, nil)
	l.add("client", "client")
	for _, name := range []string{"b1", "b2", "b3"} {
		l.add(name, "web")
	}
	v4, v6 := l.create("--publish", "8000:80/tcp", "--publish", hostAddr(false).String()+":8001:80/udp")
	l.lnctl("service", "create", "also", "--network", "net", "--select", "alias=web", "--port", "80:8080/tcp")
	want := map[string]int{"b1": 0, "b2": 0, "b3": 0}
	ask := func(from, network, to string, port int) {
		t.Helper()
		name, _, ok := strings.Cut(l.ask(from, network, to, port), " saw")
		if !ok {
			t.Fatal(name)
		}
		want[name]++
	}
	check := func(when string) {
		t.Helper()
		got, ports := countsOf(t, l.lnctl("-o", "json", "service", "inspect", "web", "--network", "net"))
		sum := 0
		for _, n := range got {
			sum += n
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v; all %d, by ports %d", when, got, want, sum, ports)
		}
	}
	check("at first")
	for range 8 {
		ask("client", "tcp", v4, 80)
		ask("client", "udp", v6, 80)
		ask("b1", "tcp", v6, 80) // some to itself
		ask("", "tcp", v4, 80)
		ask("", "tcp", "127.0.0.1", 8000)
		ask("world", "tcp", hostAddr(true).String(), 8000)
		ask("world", "udp", hostAddr(false).String(), 8001)
	}
	check("after 56 connections")
	l.lnctl("service", "update", "web", "--network", "net", "--weight", "b2=0", "--weight", "b3=5")
	l.must(l.call("b1", "web").as("DEL"))
	delete(want, "b1")
	l.add("b4", "web")
	want["b4"] = 0
	for range 8 {
		ask("client", "tcp", v4, 80)
	}
	check("others came and went")
	if got, _ := countsOf(t, l.lnctl("-o", "json", "service", "inspect", "also", "--network", "net")); got["b3"] != 0 {
		t.Errorf("another service of the same containers, with no connection: %v", got)
	}
	for i := range 20 { // so many that all counters are read at once
		l.lnctl("service", "create", fmt.Sprint("more", i), "--network", "net", "--select", "alias=web", "--port", "80:8080/tcp", "--vip", fmt.Sprint("10.60.0.", 100+i))
	}
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(l.lnctl("-o", "json", "service", "ls")), &all); err != nil {
		t.Fatal(err)
	}
	got, _ := countsOf(t, string(all[len(all)-1])) // web is the last one by name
	if !maps.Equal(got, want) {
		t.Errorf("ls of %d services: %v, want %v", len(all), got, want)
	}
}
