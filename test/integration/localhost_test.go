package integration

import "testing"

// The bridge takes packets for 127.0.0.0/8 as long as a container on it has a
// port there, and not because another container stays.
func TestRouteLocalnetEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := `{"cniVersion": "1.1.0", "name": "open", "type": "bridge-ln", "bridge": "brl", "isGateway": true, "capabilities": {"portMappings": true}, "ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.77.0.0/24"}]]}}`
	with := func(id string, port int) call {
		ports := []any{keys{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}
		return attachment("bridge-ln", id, h.netns(id), edit(t, conf, keys{"runtimeConfig": keys{"portMappings": ports}}))
	}
	a, c, plain := with("a", 8077), with("c", 8078), attachment("bridge-ln", "b", h.netns("b"), conf)
	want := func(when, value string) {
		t.Helper()
		if got := h.exec("cat", "/proc/sys/net/ipv4/conf/brl/route_localnet"); got != value+"\n" {
			t.Errorf("%s: route_localnet is %q, want %s", when, got, value)
		}
	}
	for _, one := range []call{plain, a, c} {
		h.must(one.as("ADD"))
	}
	want("two ports", "1")
	h.must(a.as("DEL"))
	want("one port", "1")
	h.must(c.as("DEL"))
	want("no port", "0")
	h.must(plain.as("DEL"))
}
