package kill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fewOfTwo is the distance between the points at which a second call is made, and leastOfTwo that
// if LIBNET_KILL asks for all: each takes a second.
const fewOfTwo, leastOfTwo = 1009, 97

// begin starts a program beside this one, and returns what waits for its end: with give set it
// gives up after that time, and returns false. A child of the shell's, not of this thread: the
// tracer waits for all of those.
func (o *operator) begin(script string) (wait func(give time.Duration) bool, said func() string) {
	o.t.Helper()
	const out, end = "/run/second.out", "/run/second.end"
	_ = os.Remove(end)
	line := fmt.Sprintf("( %s ) >%s 2>&1; echo $? >%[3]s.new; mv %[3]s.new %[3]s", script, out, end)
	cmd := exec.Command("sh", "-c", "timeout 60 sh -c '"+line+"' & :")
	o.check(cmd.Run())
	wait = func(give time.Duration) bool {
		for began := time.Now(); time.Since(began) < give; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(end); !errors.Is(err, fs.ErrNotExist) {
				o.check(err)
				return true
			}
		}
		return false
	}
	said = func() string {
		text, err := os.ReadFile(out)
		o.check(err)
		status, err := os.ReadFile(end)
		o.check(err)
		return strings.TrimSpace(string(status)) + " " + strings.TrimSpace(string(text))
	}
	return wait, said
}

// plugin is a script that calls the lab's plugin for a container.
func (o *operator) plugin(command string, c call) string {
	o.t.Helper()
	p := o.withoutPorts().chain[0]
	conf := p.conf
	if command == "GC" {
		conf = with(conf, "cni.dev/valid-attachments", `[{"containerID":"c0","ifname":"eth0"}]`)
	}
	const file = "/run/second.conf"
	o.check(os.WriteFile(file, []byte(conf), 0o600))
	path := program(o.t, p.name)
	return fmt.Sprintf("CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_NETNS=%s CNI_IFNAME=eth0 CNI_PATH=%s %s <%s", command, c.id, c.netns, filepath.Dir(path), path, file)
}

// createOther makes a service that has the same containers all the time.
const createOther = "service create other --network kill --select alias=web --port 81:80/tcp"

// TestTwoOfServices makes a second call in the middle of lnctl service, at one system call after
// the other. What comes of both is one of what comes of them in turn: no service is half, its
// containers are those that there are, and nothing is left of it when it is removed.
func TestTwoOfServices(t *testing.T) {
	var aliased scenario
	for _, s := range scenarios() {
		if s.service {
			aliased = s
		}
	}
	aliased.service = false
	for _, first := range []string{createWeb, updateWeb, removeWeb} {
		t.Run(strings.Fields(first)[1], func(t *testing.T) {
			t.Parallel()
			o := &operator{newBench(t, aliased)}
			for _, args := range []string{createWeb, updateWeb, removeWeb} {
				o.check(o.lnctl(args))
			}
			o.before = o.snapshot().without(isKept)
			lnctl := program(t, "lnctl") + " "
			for name, second := range map[string]string{
				"create": lnctl + createWeb, "update": lnctl + updateWeb, "rm": lnctl + removeWeb, "repair": lnctl + "repair", "gc": lnctl + "gc",
				"ADD": "ADD", "DEL": "DEL", "GC": "GC",
			} {
				for n, by := len(name), max(leastOfTwo, step(t, fewOfTwo)); o.two(first, name, second, n); n += by {
				}
			}
		})
	}
}

// two makes the second call at the n-th point of the first one; false if that has fewer.
func (o *operator) two(first, name, second string, n int) (met bool) {
	o.t.Helper()
	if first != createWeb {
		o.check(o.lnctl(createWeb))
		o.check(o.lnctl(createOther))
	}
	if name == "DEL" {
		_, err := o.withoutPorts().add(c1)
		o.check(err)
	}
	if second == name {
		second = o.plugin(name, c1)
	}
	var wait func(time.Duration) bool
	var said func() string
	r := o.run(lnctl, call{args: strings.Fields(first)}, "", func(_ *tracer, p point) {
		if 2*p.index+map[bool]int{true: 1}[p.after] == n {
			wait, said = o.begin(second)
			wait(20 * time.Millisecond) // unless it waits for a lock of the first
		}
	})
	if wait == nil {
		o.check(r.err())
	} else if where := fmt.Sprintf("%s beside %s at point %d", name, first, n); !wait(time.Minute) {
		o.t.Fatalf("%s: it does not end", where)
	} else {
		met = true
		o.judge(where, first, name, r.err(), said())
	}
	if first != createWeb {
		if err := o.lnctl("doctor"); err != nil && strings.Contains(err.Error(), "service") {
			o.fail("%s beside %s at point %d: doctor: %v", name, first, n, err)
		}
		o.check(o.lnctl("service rm other --network kill"))
	}
	if err := o.lnctl(removeWeb); err != nil && !strings.Contains(err.Error(), none) {
		o.fail("%s beside %s at point %d: rm: %v", name, first, n, err)
	}
	o.check(o.del(c1, ""))
	o.clean(fmt.Sprintf("%s beside %s at point %d", name, first, n))
	return met
}

// judge says what cannot be of two calls.
func (o *operator) judge(where, first, name string, err error, said string) {
	o.t.Helper()
	failed := !strings.HasPrefix(said, "0")
	switch {
	case name == "create" && first == createWeb && (err == nil) != failed:
		o.fail("%s: %v and %s: want that one of both makes it", where, err, said)
	case failed && !strings.Contains(said, "exists") && !strings.Contains(said, none):
		o.fail("%s: %s", where, said)
	case err != nil && !strings.Contains(err.Error(), "exists") && !strings.Contains(err.Error(), none):
		o.fail("%s: %v", where, err)
	}
	backends := 1
	if name == "ADD" {
		backends = 2
	}
	if o.lnctl("service inspect web --network kill") == nil {
		o.whole(where, backends)
	}
}
