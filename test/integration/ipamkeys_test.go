package integration

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func badPolicy() []bad {
	return []bad{
		{name: "exclude is a string", keys: keys{"ipam.exclude": "10.1.0.5"}, code: codeConfig, want: []string{"ipam.exclude", "10.1.0.5", "list"}},
		{name: "exclude with host bits", keys: keys{"ipam.exclude": []string{"10.1.0.5/24"}}, code: codeConfig, want: []string{"ipam.exclude[0]", "10.1.0.5/24"}},
		{name: "auxiliary address of no subnet", keys: keys{"ipam.auxAddresses": keys{"nas": "10.9.0.9"}}, code: codeConfig, want: []string{"ipam.auxAddresses.nas", "10.9.0.9"}},
		{name: "auxiliary address asked for", keys: keys{"ipam.auxAddresses": keys{"nas": "10.1.0.9"}, "runtimeConfig.ips": []string{"10.1.0.9"}}, code: codeConfig, want: []string{"10.1.0.9", "auxiliary"}},
		{name: "unknown strategy", keys: keys{"ipam.strategy": "best"}, code: codeConfig, want: []string{"ipam.strategy", "best", "lowest"}},
		{name: "sticky is a string", keys: keys{"ipam.sticky": "yes"}, code: codeConfig, want: []string{"ipam.sticky", "yes"}},
		{name: "negative cooldown", keys: keys{"ipam.cooldown": -1}, code: codeConfig, want: []string{"ipam.cooldown", "-1"}},
		{name: "cooldown with a unit", keys: keys{"ipam.cooldown": "90s"}, code: codeConfig, want: []string{"ipam.cooldown", "90s"}},
		{name: "unknown rebootPolicy", keys: keys{"ipam.rebootPolicy": "forget"}, code: codeConfig, want: []string{"ipam.rebootPolicy", "forget", "keep"}},
		{name: "warnAt above 100", keys: keys{"ipam.warnAt": 101}, code: codeConfig, want: []string{"ipam.warnAt", "101"}},
	}
}

// step is a call for a container: "ADD c1", "ADD c1 prod/web" for a pod, "ADD c1 IP=…" with CNI_ARGS, "DEL
// c1"; or "reboot"; or "held", with want leases. Else want is the address, one
// that stays the same if it ends with "=", or a part of the message.
type step struct{ do, want string }

// TestPoolKeys lives through what the keys beyond host-local's are for.
func TestPoolKeys(t *testing.T) {
	rows := []struct {
		name  string
		keys  keys
		steps []step
	}{
		{"next", nil, []step{{"ADD a", "10.1.0.2"}, {"ADD b", "10.1.0.3"}, {"DEL a", ""}, {"ADD c", "10.1.0.4"}}},
		{"lowest", keys{"ipam.strategy": "lowest"}, []step{{"ADD a", "10.1.0.2"}, {"ADD b", "10.1.0.3"}, {"DEL a", ""}, {"ADD c", "10.1.0.2"}}},
		{"random", keys{"ipam.strategy": "random", "ipam.ranges": raw(`[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.2","rangeEnd":"10.1.0.3"}]]`)}, []step{
			{"ADD a", "10.1.0."}, {"ADD b", "10.1.0."}, {"ADD c", "no address left"}}},
		{"exclude and auxAddresses", keys{"ipam.exclude": []string{"10.1.0.2", "10.1.0.4/30"}, "ipam.auxAddresses": keys{"nas": "10.1.0.8"}}, []step{
			{"ADD a", "10.1.0.3"}, {"ADD b", "10.1.0.9"}, {"ADD c IP=10.1.0.2", "10.1.0.2"}, {"ADD d IP=10.1.0.8", "auxiliary"}}},
		{"sticky", keys{"ipam.sticky": true}, []step{
			{"ADD a prod/web", "10.1.0.2"}, {"ADD b prod/db", "10.1.0.3"}, {"DEL a", ""}, {"ADD c", "10.1.0.4"},
			{"ADD d prod/web", "10.1.0.2"}, {"ADD e prod/web", "10.1.0.5"}}},
		{"not sticky", nil, []step{{"ADD a prod/web", "10.1.0.2"}, {"DEL a", ""}, {"ADD b prod/web", "10.1.0.3"}}},
		{"hash", keys{"ipam.strategy": "hash"}, []step{
			{"ADD a prod/web", "10.1.0.="}, {"DEL a", ""}, {"ADD x", ""}, {"ADD b prod/web", "10.1.0.="}}},
		{"cooldown", keys{"isGateway": false, "ipam.cooldown": 3600, "ipam.ranges": raw(`[[{"subnet":"10.1.0.0/30","gateway":"10.1.0.9"}]]`)}, []step{
			{"ADD a", "10.1.0.1"}, {"ADD b", "10.1.0.2"}, {"DEL a", ""}, {"ADD c", "1 rest until 1h0m0s have passed"},
			{"ADD c IP=10.1.0.1", "10.1.0.1"}}},
		{"cooldown and sticky", keys{"ipam.cooldown": 3600, "ipam.sticky": true}, []step{
			{"ADD a prod/web", "10.1.0.2"}, {"DEL a", ""}, {"ADD b prod/web", "10.1.0.2"}}},
		{"rebootPolicy release", nil, []step{{"ADD a", "10.1.0.2"}, {"ADD b", "10.1.0.3"}, {"reboot", ""}, {"ADD c", "10.1.0.4"}, {"held", "1"}}},
		{"rebootPolicy keep", keys{"ipam.rebootPolicy": "keep"}, []step{{"ADD a", "10.1.0.2"}, {"ADD b", "10.1.0.3"}, {"reboot", ""}, {"ADD c", "10.1.0.4"}, {"held", "3"}}},
	}
	for _, row := range rows {
		for _, plugin := range []string{"ipam-ln", "bridge-ln"} {
			t.Run(row.name+" by "+plugin, func(t *testing.T) {
				t.Parallel()
				p := &poolLife{host: newHost(t), plugin: plugin, conf: edit(t, good, row.keys), same: map[string]netip.Addr{}}
				for _, s := range row.steps {
					p.step(s)
				}
			})
		}
	}
}

type poolLife struct {
	*host
	plugin, conf string
	boots        int
	same         map[string]netip.Addr // by workload, where want ends with "="
}

func (p *poolLife) step(s step) {
	p.t.Helper()
	words := append(strings.Fields(s.do), "", "")
	switch words[0] {
	case "reboot":
		p.reboot()
		return
	case "held":
		if n := fmt.Sprint(len(p.holders())); n != s.want {
			p.t.Errorf("%s leases, want %s", n, s.want)
		}
		return
	}
	cid, for_ := words[1], words[2]
	c := attachment(p.plugin, cid, netnsPath(cid), p.conf).as(words[0])
	if words[0] == "DEL" {
		p.must(c)
		return
	}
	if _, err := os.Stat(netnsPath(cid)); err != nil {
		p.netns(cid)
	}
	if ns, name, ok := strings.Cut(for_, "/"); ok {
		for_ = "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + ns + ";K8S_POD_NAME=" + name
	}
	c.args = for_
	r := p.run(c)
	got := r.msg
	if r.code == 0 {
		got = p.theAddress(r).String()
	}
	want, again := strings.CutSuffix(s.want, "=")
	if !strings.Contains(got, want) {
		p.t.Errorf("%s: got %q, want %q", s.do, got, want)
	}
	if a, err := netip.ParseAddr(got); again {
		if before := p.same[for_]; err != nil || before.IsValid() && before != a {
			p.t.Errorf("%s: got %s, before it was %s", s.do, got, before)
		}
		p.same[for_] = a
	}
}

// reboot leaves the files of /var/lib and has the kernel say that it is
// another boot.
func (p *poolLife) reboot() {
	p.t.Helper()
	p.boots++
	path := fmt.Sprintf("/run/boot%d", p.boots)
	p.check(os.WriteFile(path, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", p.boots), 0o600))
	p.check(unix.Mount(path, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""))
}

// A pool that has reached warnAt succeeds, with a line for the operator.
func TestWarnAt(t *testing.T) {
	for _, plugin := range []string{"ipam-ln", "bridge-ln"} {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := edit(t, edit(t, good, sets(`[{"subnet":"10.1.0.0/29"}]`)), keys{"ipam.warnAt": 40})
			c := attachment(plugin, "c1", h.netns("c1"), conf)
			status := c.as("STATUS")
			for n := 1; n <= 3; n++ {
				c := attachment(plugin, fmt.Sprintf("c%d", n), h.netns(fmt.Sprintf("n%d", n)), conf)
				h.must(c.as("ADD"))
				got := h.run(status)
				warned := strings.Contains(got.stderr, fmt.Sprintf("%d of 5 addresses are held", n))
				if got.code != 0 || warned != (n >= 2) {
					t.Errorf("with %d of 5 held STATUS has code %d and says %q", n, got.code, got.stderr)
				}
			}
		})
	}
}
