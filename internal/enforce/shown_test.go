package enforce

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Whatever br_netfilter shows, and however often that changes, policies hold: connections that they
// allow go on, others are refused, and end.
func TestNetfilterSwitched(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	show := func(on int) {
		for _, name := range []string{"iptables", "ip6tables"} {
			if err := lntest.Sysctl("bridge/bridge-nf-call-"+name, fmt.Sprint(on)); err != nil {
				t.Skip("this kernel has no br_netfilter")
			}
		}
	}
	show(0)
	l.cluster()
	l.echo("a", port+2)
	const allow = `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"pod":"b"}}}]}]}`
	l.policy("some", allow)
	for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
		to := map[string]int{"tcp": port + 2, "udp": port}[network[:3]]
		var c net.Conn
		l.must(lntest.In(t, l.paths["b"], func() (err error) {
			c, err = lntest.Dial(network[:3], net.JoinHostPort(l.address("a", network), fmt.Sprint(to)), lntest.WaitForAnswer)
			return err
		}))
		for i := range 4 {
			show(i % 2)
			if _, err := lntest.Exchange(c, "x", lntest.WaitForAnswer); err != nil {
				t.Errorf("%s, call %d: %v", network, i%2, err)
			}
			if _, err := lntest.Ask(t, l.paths["c"], network[:3], net.JoinHostPort(l.address("a", network), fmt.Sprint(port)), lntest.WaitForNone); err == nil {
				t.Errorf("%s, call %d: c reaches a", network, i%2)
			}
		}
		for i := range 2 {
			show(i)
			l.policy("some", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
			show(1 - i)
			if _, err := lntest.Exchange(c, "x", lntest.WaitForNone); err == nil {
				t.Errorf("%s, call %d: goes on while it is forbidden", network, 1-i)
			}
			l.policy("some", allow)
			if network[:3] == "tcp" {
				l.must(settle(c))
			}
		}
		_ = c.Close()
	}
}

// settle waits for the answer to all that was sent, also while it was forbidden: TCP sends that again.
func settle(c net.Conn) error {
	if _, err := c.Write([]byte(".")); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer)); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('.')
	return err
}

// A frame for all stations with the address of one isolated pod in its packet is judged as one for that
// pod.
func TestFrameForAll(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		l.cluster()
		var in *net.UDPConn
		l.must(lntest.In(t, l.paths["a"], func() (err error) {
			in, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port + 3})
			return err
		}))
		t.Cleanup(func() { _ = in.Close() })
		send := func(text string) func() error {
			return func() error {
				return lntest.In(t, l.paths["c"], func() error { return frameTo(everyStation, nil, false, text) })
			}
		}
		if heard, err := lntest.Heard(in, "allowed", lntest.WaitForAnswer, send("allowed")); !heard || err != nil {
			t.Fatalf("without a policy: heard %v, %v", heard, err)
		}
		l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
		if heard, err := lntest.Heard(in, "forbidden", lntest.WaitForNone, send("forbidden")); heard || err != nil {
			t.Errorf("with a policy: heard %v, %v", heard, err)
		}
	})
}
