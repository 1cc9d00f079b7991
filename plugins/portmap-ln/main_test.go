package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// host looks like a machine of its own: a bridge br0 that some other plugin
// made, container a at 10.99.0.2 on it, and "world" at 192.0.2.2 behind it.
type host struct {
	t        *testing.T
	a, world string // paths of network namespaces
}

func newHost(t *testing.T) *host {
	t.Helper()
	lntest.IsolateHost(t)
	h := &host{t: t, a: "/run/netns/a", world: "/run/netns/world"}
	h.check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600))
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	h.check(netlink.LinkAdd(br))
	h.up("br0", "10.99.0.1/24")
	h.wire("pa", h.a, "10.99.0.2/24", "10.99.0.1")
	h.wire("uplink", h.world, "192.0.2.2/24", "192.0.2.1")
	port, err := netlink.LinkByName("pa")
	h.check(err)
	h.check(netlink.LinkSetMaster(port, br))
	h.up("uplink", "192.0.2.1/24")
	return h
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// up gives a link an address and sets it up.
func (h *host) up(name, prefix string) {
	h.t.Helper()
	h.check(lntest.Up(name, prefix))
}

// wire makes a namespace with an eth0 whose other end is here.
func (h *host) wire(name, ns, prefix, gateway string) {
	h.t.Helper()
	lntest.BindNetns(h.t, ns)
	f, err := os.Open(ns)
	h.check(err)
	defer func() { _ = f.Close() }()
	h.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(f.Fd()))}))
	l, err := netlink.LinkByName(name)
	h.check(err)
	h.check(netlink.LinkSetUp(l))
	lntest.Enter(h.t, ns, func() {
		h.up("eth0", prefix)
		h.check(netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	})
}

// serve answers connections to port 80 of container a.
func (h *host) serve() {
	h.t.Helper()
	var l net.Listener
	lntest.Enter(h.t, h.a, func() {
		var err error
		l, err = net.Listen("tcp4", "0.0.0.0:80")
		h.check(err)
	})
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "a")
			_ = conn.Close()
		}
	}()
}

// patienceFor is how long to wait for an answer that is wanted, or is not.
func patienceFor(wanted bool) time.Duration {
	if wanted {
		return lntest.WaitForAnswer
	}
	return lntest.WaitForNone
}

// reaches says whether the world gets the container's answer at a port of the host.
func (h *host) reaches(port string, wanted bool) bool {
	h.t.Helper()
	return h.reachesFrom(h.world, "192.0.2.1", port, patienceFor(wanted))
}

// reachesFrom is reaches from another namespace, at an address of the host.
func (h *host) reachesFrom(ns, at, port string, patience time.Duration) bool {
	h.t.Helper()
	said := ""
	lntest.Enter(h.t, ns, func() {
		conn, err := lntest.Dial("tcp4", net.JoinHostPort(at, port), patience)
		if err != nil {
			return
		}
		h.check(conn.SetDeadline(time.Now().Add(lntest.WaitForAnswer)))
		data, err := io.ReadAll(conn)
		h.check(err)
		h.check(conn.Close())
		said = string(data)
	})
	return said == "a"
}

// ruleset is what nft lists, without handles and counters.
func (h *host) ruleset() string {
	h.t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		h.t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	return string(out)
}

// answer is what a plugin says.
type answer struct {
	Code uint
	Msg  string
	out  string
}

// run calls the plugin for a container's eth0 in namespace ns.
func (h *host) run(command, cid, ns, keys string) answer {
	h.t.Helper()
	return h.runAs("1.1.0", command, cid, ns, keys)
}

func (h *host) runAs(version, command, cid, ns, keys string) answer {
	h.t.Helper()
	env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": cid, "CNI_NETNS": ns, "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
	stdin := `{"cniVersion":"` + version + `","name":"net1","type":"portmap-ln"` + keys + `}`
	var out, stderr bytes.Buffer
	status := program().Run(func(k string) string { return env[k] }, cni.Streams{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &stderr})
	a := answer{out: strings.TrimSpace(out.String())}
	if status != 0 {
		h.check(json.Unmarshal(out.Bytes(), &a))
	}
	if stderr.Len() > 0 {
		h.t.Errorf("%s says on stderr: %s", command, &stderr)
	}
	return a
}

// must is run for a call that succeeds; it returns what was printed.
func (h *host) must(command, cid, ns, keys string) string {
	h.t.Helper()
	a := h.run(command, cid, ns, keys)
	if a.Code != 0 {
		h.t.Fatalf("%s of %s: code %d: %s", command, cid, a.Code, a.Msg)
	}
	return a.out
}
