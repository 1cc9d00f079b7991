package integration

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const readOnlyConf = `{
	"cniVersion": "1.1.0", "name": "net", "type": "bridge-ln",
	"bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
	"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
	"ipam": {"type": "ipam-ln", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
}`

// preset sets what an administrator, or a runtime in a new namespace, has to
// set before /proc/sys is read-only.
func (h *host) preset(ns, name string) {
	h.t.Helper()
	h.in(ns, func() { h.check(os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0)) })
}

func (h *host) readOnlySysctls() {
	h.t.Helper()
	h.check(unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
	h.check(unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
}

// In a sandbox with a read-only /proc/sys an IPv4 network works where the values
// are what they have to be: masquerade, published ports by 127.0.0.1, CHECK, DEL.
func TestReadOnlySysctls(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.world()
	c := attachment("bridge-ln", "c1", h.netns("c1"), readOnlyConf)
	before := h.snapshot()
	h.preset("", "ipv4/ip_forward")
	h.preset("", "ipv6/conf/default/disable_ipv6")
	h.preset(c.netns, "ipv6/conf/default/disable_ipv6")
	h.readOnlySysctls()
	h.must(c.as("STATUS"))
	added := h.must(c.as("ADD"))
	h.ping(c.netns, worldAddr(false))
	var l net.Listener
	h.in(c.netns, func() {
		var err error
		l, err = net.Listen("tcp", ":80")
		h.check(err)
	})
	defer func() { _ = l.Close() }()
	// The kernel completes the handshake of a client that it lets in, before accept(2).
	if there, err := net.DialTimeout("tcp", "127.0.0.1:8080", lntest.WaitForAnswer); err != nil {
		t.Errorf("published port: %v", err)
	} else {
		h.check(there.Close())
	}
	var conf map[string]any
	h.check(json.Unmarshal([]byte(readOnlyConf), &conf))
	conf["prevResult"] = json.RawMessage(added.stdout)
	text, err := json.Marshal(conf)
	h.check(err)
	h.must(c.with(string(text)).as("CHECK"))
	h.must(c.as("STATUS"))
	h.must(c.as("ADD"))
	h.must(c.as("DEL"))
	h.must(c.as("STATUS"))
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, readOnlyConf, keys{"cni.dev/valid-attachments": raw("[]")})})
	h.same(before)
}

// Where a value is not what it has to be, the error names the key, what it is,
// what it has to be, and the file; and nothing is left. STATUS says so before, but for
// what is set in the container, which it does not know.
func TestReadOnlySysctlsWrong(t *testing.T) {
	for _, tt := range []struct {
		name         string
		host, inside bool // IPv6 is off by default
		subnet       string
		want         []string
		status       string
	}{
		{"bridge", false, true, "10.1.0.0/24", []string{"net.ipv6.conf.br0.disable_ipv6 is 0, want 1", "/proc/sys/net/ipv6/conf/br0/disable_ipv6", "read-only"},
			"net.ipv6.conf.default.disable_ipv6 is 0, want 1"},
		{"container", true, false, "10.1.0.0/24", []string{"net.ipv6.conf.eth0.disable_ipv6 is 0, want 1", "/run/netns/c1", "devconf_inherit_init_net"}, ""},
		{"forwarding", true, true, "10.1.0.0/24", []string{"net.ipv4.ip_forward is 0, want 1", "/proc/sys/net/ipv4/ip_forward"},
			"net.ipv4.ip_forward is 0, want 1"},
		{"IPv6", true, true, "fd01::/64", []string{"net.ipv6.conf.br0.disable_ipv6 is 1, want 0"},
			"net.ipv6.conf.default.disable_ipv6 is 1, want 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := edit(t, readOnlyConf, keys{"ipam.ranges": raw(`[[{"subnet":"` + netip.MustParsePrefix(tt.subnet).String() + `"}]]`)})
			c := attachment("bridge-ln", "c1", h.netns("c1"), conf)
			if tt.name != "forwarding" {
				h.preset("", "ipv4/ip_forward")
			}
			for ns, off := range map[string]bool{"": tt.host, c.netns: tt.inside} {
				if off {
					h.preset(ns, "ipv6/conf/default/disable_ipv6")
				}
			}
			h.readOnlySysctls()
			before := h.snapshot()
			if tt.status == "" {
				h.must(c.as("STATUS"))
			} else {
				h.refused(c.as("STATUS"), codeStatus, tt.status, "read-only")
			}
			h.refused(c.as("ADD"), codeIO, tt.want...)
			h.same(before)
		})
	}
}
