package enforce

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	lnnetlink "github.com/libnet-cni/libnet/internal/netlink"
)

// While devices cannot be read, the kernel stays as it is, and an error says so.
func TestDevicesUnread(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	open := l.e.links
	l.e.links = func() (*lnnetlink.Conn, error) { return nil, unix.EMFILE }
	l.e.Policy(policyOf(t, "x", "deny", "{}"), true)
	if err := l.e.bring(context.Background()); err == nil || l.e.Err() == nil {
		t.Errorf("no error: %v, %v", err, l.e.Err())
	}
	l.reaches("b", "c")
	l.blocked("b", "a")
	l.e.links = open
	l.apply()
	l.reaches("b", "a")
}
