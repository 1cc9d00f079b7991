package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTrickyNames lives through all verbs under names that are allowed and look
// like something else, with everything read-only but our directories.
func TestTrickyNames(t *testing.T) {
	rows := []struct{ network, cid, ifName string }{
		{"n..", "c..", "..."},
		{"lock", "lock", "lock"},
		{"networks", "endpoints", "sandboxes"},
		{"portmap", "network.json", "x.json"},
		{"10.1.0.2", "10.1.0.2", "10.1.0.2"},
		{"0-", "state", "-rf"},
		{strings.Repeat("n", 120), strings.Repeat("c", 110), "fifteen-bytes.."},
		{"a", "b-eth0", "\\0$(id)"},
	}
	for _, row := range rows {
		t.Run(fmt.Sprintf("%.20s %.20s %s", row.network, row.cid, row.ifName), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := edit(t, full, keys{"name": row.network, "runtimeConfig.portMappings": raw(`[{"hostPort":8080,"containerPort":80}]`)})
			c := attachment("bridge-ln", row.cid, h.netns("c"), conf)
			c.ifName = row.ifName
			h.check(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			before := h.snapshot()
			bare := c.with(edit(t, conf, keys{"runtimeConfig": nil}))
			bare.stdin = edit(t, bare.stdin, keys{"prevResult": raw(h.must(bare.as("ADD")).stdout)})
			publish := c.with(edit(t, bare.stdin, keys{"runtimeConfig.portMappings": raw(`[{"hostPort":8080,"containerPort":80}]`),
				"bridge": nil, "icc": nil, "ipMasq": nil, "isDefaultGateway": nil, "macspoofchk": nil}))
			publish.plugin = "portmap-ln"
			h.must(publish.as("ADD"))
			for _, c := range []call{bare, publish} {
				h.must(c.as("CHECK"))
			}
			h.onlyIn("/run/netns", "/run/libnet", "/var/lib/cni")
			h.must(publish.as("DEL"))
			h.must(bare.as("DEL"))
			h.must(bare.with(edit(t, conf, keys{"cni.dev/valid-attachments": []string{}})).as("GC"))
			h.same(before)
		})
	}
}

// onlyIn fails the test if there are files elsewhere in /run and /var/lib.
func (h *host) onlyIn(dirs ...string) {
	h.t.Helper()
	for _, root := range []string{"/run", "/var/lib"} {
		h.check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			for _, dir := range dirs {
				if strings.HasPrefix(path, dir+"/") {
					return nil
				}
			}
			h.t.Errorf("%s was made", path)
			return nil
		}))
	}
}

// TestSymlinks puts a symbolic link in the place of each of our files. What it
// leads to is neither changed nor made, by no verb.
func TestSymlinks(t *testing.T) {
	for _, path := range []string{
		"/run/libnet/networks/net/network.json",
		"/run/libnet/networks/net/lock",
		"/run/libnet/networks/net/endpoints/c1:eth0.json",
		"/run/libnet/portmap/networks/net/lock",
		"/run/libnet/portmap/networks/net/endpoints/c1:eth0.json",
		leaseDir + "/10.1.0.2",
		leaseDir + "/lock",
		leaseDir + "/last_reserved_ip.0",
		"/var/lib/cni/networks/.libnet/net",
		"/var/lib/cni/networks/.libnet/net/state",
		"/var/lib/cni/networks/.libnet/net/lock",
	} {
		for _, dangling := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s dangling %v", path, dangling), func(t *testing.T) {
				t.Parallel()
				newHost(t).symlink(path, dangling)
			})
		}
	}
}

func (h *host) symlink(path string, dangling bool) {
	h.t.Helper()
	const victim, said = "/run/victim", "a file of another program\n"
	h.check(os.MkdirAll(filepath.Dir(path), 0o755))
	h.check(os.Symlink(victim, path))
	if !dangling {
		h.check(os.WriteFile(victim, []byte(said), 0o600))
	}
	bridge := attachment("bridge-ln", "c1", h.netns("c1"), full)
	ports := bridge.with(edit(h.t, full, keys{
		"runtimeConfig.portMappings": raw(`[{"hostPort":8080,"containerPort":80}]`),
		"prevResult":                 raw(`{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24"}]}`),
	}))
	ports.plugin = "portmap-ln"
	for _, verb := range []string{"STATUS", "ADD", "ADD", "CHECK", "DEL", "GC"} {
		for _, c := range []call{bridge, ports} {
			c.command = verb
			r := h.bounded(c, strings.NewReader(c.stdin), time.Minute)
			if verb == "DEL" && r.code != 0 {
				h.t.Logf("%s DEL: code %d: %s", c.plugin, r.code, r.msg)
			}
			now, err := os.ReadFile(victim)
			if dangling && !errors.Is(err, fs.ErrNotExist) || !dangling && string(now) != said {
				h.t.Fatalf("%s %s wrote through the link: %q, %v", c.plugin, verb, now, err)
			}
		}
	}
}

// bounded is run for what may hang, or take all memory there is.
func (h *host) bounded(c call, stdin interface{ Read([]byte) (int, error) }, bound time.Duration) reply {
	h.t.Helper()
	const memory = 512 << 10 // KiB
	ctx, cancel := context.WithTimeout(h.t.Context(), bound)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program(h.t, c.plugin))
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.environ(h.t), stdin, &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start).Round(time.Millisecond)
	if ctx.Err() != nil {
		h.t.Fatalf("%s %s: still running after %s", c.plugin, c.command, took)
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if usage != nil && usage.Maxrss > memory {
		h.t.Errorf("%s %s: took %d KiB of memory, want %d at most", c.plugin, c.command, usage.Maxrss, memory)
	}
	h.t.Logf("%s %s: %s, %d KiB", c.plugin, c.command, took, usage.Maxrss)
	return h.reply(c, err, stdout.String(), stderr.String())
}

// zeros is an input without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// many returns n items, each made of its number, as a JSON list.
func many(n int, format string) raw {
	var b strings.Builder
	for i := range n {
		b.WriteString(map[bool]string{true: "[", false: ","}[i == 0])
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(format, "#", fmt.Sprint(i)), "@", fmt.Sprintf("%d.%d.%d", i>>16&0xff, i>>8&0xff, i&0xff)))
	}
	return raw(b.String() + "]")
}

// bomb is a configuration that is large, or deep, in some place.
type bomb struct {
	name   string
	plugin string // missing: bridge-ln
	verb   string // missing: ADD
	key    string
	value  raw
	code   uint
	any    bool // of the codes is well
}

// TestBombs holds that what is large is refused or served in bounded time and
// memory, and leaves nothing.
func TestBombs(t *testing.T) {
	deep := func(n int) raw { return raw(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	for _, b := range []bomb{
		{name: "deep", key: "x", value: deep(9000)},
		{name: "too deep", key: "x", value: deep(1e6), code: codeDecode},
		{name: "deep ranges", key: "ipam.ranges", value: deep(9000), code: codeConfig},
		{name: "too large", key: "x", value: raw(`"` + strings.Repeat("x", 8<<20) + `"`), code: codeDecode},
		{name: "a large string", key: "x", value: raw(`"` + strings.Repeat("x", 7<<20) + `"`)},
		{name: "a large name", key: "name", value: raw(`"` + strings.Repeat("x", 7<<20) + `"`), code: codeConfig},
		{name: "a large number", key: "mtu", value: raw(strings.Repeat("9", 7<<20)), code: codeConfig},
		{name: "many keys", key: "x", value: raw("{" + strings.Trim(string(many(100000, `"k#":0`)), "[]") + "}")},
		{name: "one key many times", key: "ipam.x", value: raw(`0` + strings.Repeat(`,"ranges":[]`, 100000)), code: codeConfig},
		{name: "many range sets", key: "ipam.ranges", value: many(20000, `[{"subnet":"10.@/32"}]`), code: codeConfig},
		{name: "many ranges", key: "ipam.ranges", value: "[" + many(20000, `{"subnet":"10.@/32"}`) + "]", code: codeConfig},
		{name: "many excluded", key: "ipam.exclude", value: many(20000, `"10.@"`), any: true},
		{name: "many excluded far away", key: "ipam.exclude", value: many(20000, `"11.@"`), any: true},
		{name: "many name servers", key: "dns.nameservers", value: many(20000, `"10.@"`)},
		{name: "many trusted interfaces", key: "trustedInterfaces", value: many(20000, `"e#"`), any: true},
		{name: "many ranges of VLANs", key: "vlanTrunk", value: many(20000, `{"id":7}`), any: true},
		{name: "many addresses asked for", key: "runtimeConfig.ips", value: many(100000, `"10.@/8"`), any: true},
		{name: "many ports of the same number", key: "runtimeConfig.portMappings", value: many(100000, `{"hostPort":80,"containerPort":80}`), code: codeConfig},
		{name: "many ports of one number, each of another address", key: "runtimeConfig.portMappings", value: many(100000, `{"hostPort":80,"containerPort":80,"hostIP":"10.@"}`), any: true},
		{name: "many free ports", key: "runtimeConfig.portMappings", value: many(100000, `{"containerPort":80}`), any: true},
		{name: "many clients", key: "runtimeConfig.portMappings", value: `[{"hostPort":80,"containerPort":80,"sourceRanges":` + many(100000, `"10.@"`) + `}]`, any: true},
		{name: "all ports", key: "runtimeConfig.portMappings", value: `[{"hostPort":1,"hostPortEnd":65535,"containerPort":1}]`},
		{name: "a large prevResult", plugin: "portmap-ln", key: "prevResult.ips", value: many(100000, `{"address":"10.@/8"}`)},
		{name: "a large prevResult", verb: "CHECK", key: "prevResult.ips", value: many(20000, `{"address":"10.@/8","interface":0}`), code: codeConfig},
		{name: "a large prevResult", verb: "DEL", key: "prevResult.ips", value: many(100000, `{"address":"10.@/8"}`)},
		{name: "a long list", verb: "GC", key: "cni.dev/valid-attachments", value: many(100000, `{"containerID":"c#","ifname":"eth0"}`)},
	} {
		t.Run(strings.TrimSpace(b.plugin+" "+b.verb+" "+b.name), func(t *testing.T) {
			t.Parallel()
			b.test(t)
		})
	}
}

func (b bomb) test(t *testing.T) {
	h := newHost(t)
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), "").as("ADD")
	if b.plugin != "" {
		c.plugin = b.plugin
	}
	if b.verb != "" {
		c.command = b.verb
	}
	conf := edit(t, good, keys{"prevResult.cniVersion": "1.1.0", b.key: "BOMB"})
	c.stdin = strings.Replace(conf, `"BOMB"`, string(b.value), 1)
	if r := h.bounded(c, strings.NewReader(c.stdin), time.Minute); r.code != b.code && !b.any {
		t.Errorf("code %d, want %d: %.300s", r.code, b.code, r.msg)
	} else if len(r.msg) > 1000 {
		t.Errorf("the message has %d bytes: %.300s", len(r.msg), r.msg)
	}
	c.stdin = good
	h.must(c.as("DEL"))
	h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, good, keys{"cni.dev/valid-attachments": []string{}})})
	h.same(before)
}

func TestEndlessInput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c := attachment("bridge-ln", "c1", h.netns("c1"), "").as("ADD")
	if r := h.bounded(c, zeros{}, time.Minute); r.code != codeDecode {
		t.Errorf("code %d, want %d: %s", r.code, codeDecode, r.msg)
	}
}
