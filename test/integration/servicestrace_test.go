package integration

import (
	"strings"
	"testing"
)

// trace says of what a service refuses why, and what would be right.
func TestServiceTrace(t *testing.T) {
	l := newServicesLab(t, nil)
	l.add("client", "client")
	v4, v6 := l.create("--publish", "8000:80")
	refused := func(says string, args ...string) {
		t.Helper()
		out, err := l.tryLnctl(append([]string{"trace"}, args...)...)
		if err == nil || !strings.Contains(out, says) {
			t.Errorf("trace %v: %v: %s\nwant %q", args, err, out, says)
		}
	}
	refused(`✗ refused: no container is behind service "web" of network "net"`, "client", v4+":80")
	refused(`✗ refused: no container is behind service "web" of network "net"`, "client", "10.60.0.1:8000")
	l.add("b1", "web")
	if out := l.lnctl("trace", "client", v4+":80"); !strings.Contains(out, "→ 10.60.0.") || !strings.Contains(out, "✓ arrived") {
		t.Errorf("with a container: %s", out)
	}
	refused(`✗ refused: service "web" of network "net" has no port 81/tcp; its ports are 80:8080/tcp,80:8080/udp`, "client", "["+v6+"]:81")
	l.lnctl("service", "drain", "web", "b1", "--network", "net")
	refused("✗ refused: all containers behind service \"web\" of network \"net\" are drained: lnctl service drain web CONTAINER --network net --undo", "host", v4+":80/udp")
	// Of a port of the host, from a client outside and by UDP; and of the address from a container of
	// another network.
	refused("✗ refused: all containers behind service \"web\" of network \"net\" are drained", "host", "10.60.0.1:8000")
	l.lnctl("service", "update", "web", "--network", "net", "--publish", "8000:80/udp")
	refused("✗ refused: all containers behind service \"web\" of network \"net\" are drained", "client", "10.60.0.1:8000/udp")
	l.lnctl("service", "drain", "web", "b1", "--network", "net", "--undo")
	other := edit(t, l.conf, map[string]any{
		"name": "other", "bridge": "br-other", "ipam": map[string]any{"type": "ipam-ln", "dataDir": "/run/leases", "ranges": []any{[]any{map[string]any{"subnet": "10.61.0.0/24"}}}},
	})
	l.must(attachment("bridge-ln", "stranger", l.netns("stranger"), other).as("ADD"))
	refused("✗ refused: the address is that of service \"web\" of network \"net\", for the containers of that network and the host; others need a published port", "stranger", v4+":80")
}
