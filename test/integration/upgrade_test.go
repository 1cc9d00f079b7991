package integration

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// previousRelease is the commit whose rules hosts have that are upgraded.
const previousRelease = "8a97e5f"

// buildPrevious builds the plugins of the previous release, and returns where
// they are.
func buildPrevious(t *testing.T) string {
	t.Helper()
	return buildCommit(t, previousRelease, "./plugins/...")
}

// buildCommit builds programs of an earlier commit, and returns where they are. Its source is
// in the history, which a shallow clone, or a tree without git, has not.
func buildCommit(t *testing.T, commit, programs string) string {
	t.Helper()
	shallow, err := exec.Command("git", "rev-parse", "--is-shallow-repository").Output()
	whole := err == nil && strings.TrimSpace(string(shallow)) == "false"
	if !whole && exec.Command("git", "cat-file", "-e", commit).Run() != nil {
		t.Skipf("there is no commit %s, an earlier build, in this copy: git fetch --unshallow", commit)
	}
	dir := t.TempDir()
	script := `set -e; cd "$(git rev-parse --show-toplevel)"; git archive ` + commit + ` | tar -x -C "$1"; cd "$1"; go build -o "$1/bin/" ` + programs
	cmd := exec.Command("sh", "-c", script, "sh", dir)
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build commit %s: %v\n%s", commit, err, out)
	}
	return filepath.Join(dir, "bin")
}

// upgraded is a network of the previous release's with a container on it.
type upgraded struct {
	name, subnet string
	keys         keys
	ports        []any
	open         bool // outside reaches the container's own address
	out          bool // the container reaches outside
}

func upgrades() []upgraded {
	return []upgraded{
		{name: "nat", subnet: "10.61.0.0/24", keys: keys{"gatewayMode": "nat", "ipMasq": true}, out: true,
			ports: []any{keys{"hostPort": 8081, "containerPort": flowPort, "protocol": "tcp"}, keys{"hostPort": 8081, "containerPort": flowPort, "protocol": "udp"}}},
		{name: "routed", subnet: "10.62.0.0/24", keys: keys{"gatewayMode": "routed"}, out: true},
		{name: "internal", subnet: "10.63.0.0/24", keys: keys{"internal": true}},
		{name: "noicc", subnet: "10.64.0.0/24", keys: keys{"icc": false, "gatewayMode": "nat"}, out: true},
		{name: "plain", subnet: "10.65.0.0/24", keys: keys{"ipMasq": true, "macspoofchk": true}, out: true, open: true},
	}
}

func (u upgraded) conf(t *testing.T) string {
	conf := `{"cniVersion": "1.1.0", "type": "bridge-ln", "isGateway": true, "capabilities": {"portMappings": true}, "ipam": {"type": "ipam-ln"}}`
	conf = edit(t, conf, keys{"name": u.name, "bridge": "br-" + u.name, "ipam.ranges": []any{[]any{keys{"subnet": u.subnet}}}})
	if u.keys["internal"] == nil {
		conf = edit(t, conf, keys{"isDefaultGateway": true})
	}
	if u.ports != nil {
		conf = edit(t, conf, keys{"runtimeConfig": keys{"portMappings": u.ports}})
	}
	return edit(t, conf, u.keys)
}

// An upgrade renews the rules under living containers: nothing of an established
// flow is lost, nothing closed is open meanwhile, and what the previous release
// made the new one removes.
func TestUpgrade(t *testing.T) {
	old := buildPrevious(t)
	for _, first := range []string{"STATUS", "ADD", "DEL"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			testUpgrade(t, old, first)
		})
	}
}

func testUpgrade(t *testing.T, old, first string) {
	h := newHost(t)
	h.world()
	world := netnsPath("world")
	echoBack(t, world)
	closed := newProber(t, world)
	calls := map[string]call{}
	var flows []*flow
	for _, u := range upgrades() {
		ns := h.netns(u.name)
		c := attachment("bridge-ln", u.name, ns, u.conf(t))
		r := h.runProgram(old+"/bridge-ln", c.as("ADD"))
		if r.code != 0 {
			t.Fatalf("ADD by the previous release: %s", r.msg)
		}
		calls[u.name] = c
		addr := h.theAddress(r)
		h.route(world, netip.PrefixFrom(addr, 24).Masked().String(), hostAddr(false).String())
		echoBack(t, ns)
		to := netip.AddrPortFrom(addr, flowPort).String()
		if u.out {
			flows = append(flows, newFlow(t, u.name+" to outside", ns, netip.AddrPortFrom(worldAddr(false), flowPort).String())...)
		}
		if u.open {
			flows = append(flows, newFlow(t, "outside to "+u.name, world, to)...)
		} else {
			closed.add(to)
		}
	}
	flows = append(flows, newFlow(t, "outside to a published port", world, hostAddr(false).String()+":8081")...)
	neighbour := attachment("bridge-ln", "more", h.netns("more"), edit(t, upgrades()[3].conf(t), nil))
	if r := h.runProgram(old+"/bridge-ln", neighbour.as("ADD")); r.code != 0 {
		t.Fatal(r.msg)
	}
	if strings.Contains(h.ruleset(), "release-") {
		t.Fatal("the previous release names itself: the test shows nothing")
	}
	run := startAll(t, flows, closed)

	switch first {
	case "STATUS":
		h.must(calls["nat"].as("STATUS"))
	case "ADD":
		h.must(attachment("bridge-ln", "new", h.netns("new"), upgrades()[4].conf(t)).as("ADD"))
	case "DEL":
		h.must(neighbour.as("DEL"))
		h.must(calls["nat"].as("STATUS"))
	}
	if rules := h.ruleset(); !strings.Contains(rules, "release-") {
		t.Errorf("after %s the rules are not those of this release:\n%s", first, rules)
	}
	run.stop()
	if said := h.doctor(); strings.Contains(said, "✗ elements") || strings.Contains(said, "✗ guards") {
		t.Errorf("doctor:\n%s", said)
	}
	h.nft("flush ruleset")
	if !closed.reaches() { // or the probes show nothing
		t.Error("no probe is answered without any rules")
	}
	for _, u := range upgrades() {
		h.must(calls[u.name].as("STATUS"))
	}
	for _, c := range calls {
		h.must(c.as("DEL"))
	}
	for _, c := range []call{neighbour, attachment("bridge-ln", "new", netnsPath("new"), upgrades()[4].conf(t))} {
		h.must(c.as("DEL"))
	}
	for _, u := range upgrades() { // the bridge and its guard stay until then
		h.must(call{plugin: "bridge-ln", command: "GC", stdin: edit(t, u.conf(t), keys{"cni.dev/valid-attachments": []string{}})})
	}
	if rules := strings.TrimSpace(h.ruleset()); rules != "" {
		t.Errorf("left of the rules:\n%s", rules)
	}
}

// The previous release's DEL takes leases, links and ports of what the new one
// made, as after a downgrade. It does not know the guards of bridges and some
// sets; what they hold is for an address that is free, and for no other bridge.
func TestDowngrade(t *testing.T) {
	old := buildPrevious(t)
	h := newHost(t)
	h.world()
	for _, u := range upgrades() {
		c := attachment("bridge-ln", u.name, h.netns(u.name), u.conf(t))
		h.must(c.as("ADD"))
	}
	for _, u := range upgrades() {
		c := attachment("bridge-ln", u.name, netnsPath(u.name), u.conf(t))
		if r := h.runProgram(old+"/bridge-ln", c.as("DEL")); r.code != 0 {
			t.Errorf("DEL by the previous release: code %d, %s", r.code, r.msg)
		}
	}
	for _, line := range strings.Split(h.ruleset(), "\n") {
		if strings.Contains(line, "10.6") && !strings.Contains(line, "libnet:") || strings.Contains(line, "8081") {
			t.Errorf("an element is left: %s", line)
		}
	}
	for _, dir := range []string{"/run/libnet/networks/*/endpoints/*", "/var/lib/cni/networks/*/10.*"} {
		if left, err := filepath.Glob(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	h.must(attachment("bridge-ln", "again", h.netns("again"), upgrades()[0].conf(t)).as("ADD")) // the new release again
}

func (h *host) ruleset() string {
	h.t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	h.check(err)
	return string(out)
}
