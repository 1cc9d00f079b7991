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
}
