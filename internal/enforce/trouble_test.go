package enforce

import (
	"context"
	"testing"

	"github.com/vishvananda/netlink"
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

// Ports that an older release made, of no group, are judged as others.
func TestPortsOfNoGroup(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, name := range []string{"pa", "pb", "pc"} {
		link, err := netlink.LinkByName(name)
		l.must(err)
		l.must(netlink.LinkSetGroup(link, 0))
	}
	l.cluster()
	l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
	l.blocked("b", "a")
	l.reaches("b", "c")
}
