package main

import (
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/cmd/lnctl/trace"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// A packet that is dropped is followed to the rule that drops it, ours or another program's;
// one that arrives to its answer. Nothing is left of the table.
func TestTrace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		harm func(*lab)
		args string
		code int
		says []string
	}{
		"a ping to another network": {
			nil, "c2 192.0.2.2", exitOK, []string{"✓ arrived: 192.0.2.2 answers the echo", "forward", "10.33.0.2 → 192.0.2.2"},
		},
		"a closed network": {
			nil, "c2 10.32.0.2:80", exitProblem, []string{"✗ dropped at forward by the rule", `table inet libnet: network "web": only published ports come in (gatewayMode)`},
		},
		"a published port": {
			func(l *lab) { l.serve("c1", "80") }, "c2 192.0.2.1:8080", exitOK,
			[]string{"arrived: the connection was accepted", "→ 192.0.2.1:8080", "→ 10.32.0.2:80"},
		},
		"a port that is closed": {nil, "c1 192.0.2.1:99", exitOK, []string{"nothing listens there", "input"}},
		"IPv6":                  {nil, "host fd32::2", exitOK, []string{"arrived: fd32::2 answers the echo"}},
		"from the host to a container": {
			nil, "host c2", exitOK, []string{"arrived: 10.33.0.2 answers the echo", "output"},
		},
		"another program's rule": {
			func(l *lab) {
				l.nft("table ip other {\n chain f {\n type filter hook forward priority 5; policy accept;\n jump g\n }\n chain g {\n ip daddr 192.0.2.2 drop comment \"no outside\"\n }\n}\n", "-f", "-")
			}, "c2 192.0.2.2", exitProblem, []string{`✗ dropped at forward by the rule "no outside" of chain g, table ip other: it is not libnet's`, "jump g"},
		},
		"another program's policy": {
			func(l *lab) {
				l.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n", "-f", "-")
			}, "c2 192.0.2.2:80", exitProblem, []string{"✗ dropped at forward by the policy of chain FORWARD, table ip filter: it is not libnet's"},
		},
		"before the hooks of libnet": {
			func(l *lab) {
				l.nft("table inet raw {\n chain p {\n type filter hook prerouting priority -300; policy accept;\n udp dport 53 drop\n }\n}\n", "-f", "-")
			}, "c2 192.0.2.2:53/udp", exitProblem, []string{"✗ dropped at prerouting by the rule udp dport 53 drop of chain p, table inet raw"},
		},
		"forwarding is off": {
			func(l *lab) { l.sysctl("net/ipv4/conf/ln1/forwarding", "0") }, "c2 192.0.2.2", exitProblem,
			[]string{"✗ the kernel let it go no further after prerouting: forwarding is off"},
		},
		"no answer": {
			func(l *lab) { l.must(exec.Command("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2").Run()) },
			"c2 198.51.100.1:80 --wait 500ms", exitProblem, []string{"✗ no rule dropped it, the last hook is postrouting, out by uplink", "look at the destination"},
		},
		"no way": {
			func(l *lab) {
				l.must(exec.Command("nsenter", "--net="+netnsOf("c2"), "ip", "route", "del", "default").Run())
			},
			"c2 198.51.100.1", exitProblem, []string{"c2 has no way to 198.51.100.1"},
		},
		"nothing sent": {nil, "192.0.2.2 192.0.2.1:8080 --wait 100ms", exitProblem, []string{"no packet from 192.0.2.2 to 192.0.2.1:8080 came in 100ms"}},
		"no container": {nil, "c9 192.0.2.2", exitProblem, []string{`no address: "c9": no container begins so`}},
		"two families": {nil, "192.0.2.2 fd32::2", exitUsage, []string{"two address families"}},
		"a wrong port": {nil, "c2 192.0.2.2:99999", exitUsage, []string{"want a port from 1 to 65535"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.populate()
			lntest.Enter(t, l.out, func() { // the way back
				for _, net := range []string{"10.32.0.0/24", "10.33.0.0/24"} {
					dst, err := netlink.ParseIPNet(net)
					l.must(err)
					l.must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: []byte{192, 0, 2, 1}}))
				}
			})
			if tt.harm != nil {
				tt.harm(l)
			}
			out := l.lnctl(tt.code, append([]string{"trace"}, strings.Fields(tt.args)...)...)
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			var tables []byte
			// Processes that other tests start hold all sockets for a moment.
			if !lntest.Await(lntest.WaitForAnswer, func() bool {
				tables, _ = exec.Command("nft", "list", "tables").Output()
				return !strings.Contains(string(tables), "libnet-trace")
			}) {
				t.Errorf("left: %s", tables)
			}
		})
	}
}

// The packet of another host is followed when it comes.
func TestTraceFromOutside(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	l.serve("c1", "80")
	lntest.Enter(t, l.out, func() {
		cmd := exec.Command("sh", "-c", "while :; do timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.1/8080' 2>/dev/null; sleep 0.05; done")
		l.must(cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	})
	var got trace.Found
	out := l.lnctl(exitOK, "trace", "192.0.2.2", "192.0.2.1:8080", "--wait", "30s", "-o", "json")
	out = out[:strings.LastIndex(out, "}")+1]
	if err := json.Unmarshal([]byte(out), &got); err != nil || !got.Arrived || len(got.Steps) == 0 {
		t.Fatalf("%v: %s", err, out)
	}
	translated := false
	for _, s := range got.Steps {
		translated = translated || s.Hook == "forward" && s.Dest == "10.32.0.2:80"
	}
	if !translated {
		t.Errorf("no step shows the container's address: %s", out)
	}
}

// Datagrams and echoes that another socket of the container sends to the same place at the
// same time are not taken for those of the trace.
func TestTraceAmongOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.populate()
	var flood net.Conn
	lntest.Enter(t, netnsOf("c2"), func() {
		var err error
		flood, err = (&net.Dialer{LocalAddr: &net.UDPAddr{Port: 7777}}).Dial("udp4", "192.0.2.2:53")
		l.must(err)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for { // refusals come back, too
			if _, err := flood.Write([]byte("x")); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = flood.Close(); <-done })
	for range 3 {
		out := l.lnctl(exitProblem, "trace", "c2", "192.0.2.2:53/udp", "--wait", "200ms", "-o", "json")
		if !strings.Contains(out, `"source": "10.33.0.2:`) || strings.Contains(out, ":7777") {
			t.Fatalf("want the packet of lnctl, and no other:\n%s", out)
		}
	}
}
