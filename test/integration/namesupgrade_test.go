package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// earlierNames is a commit whose agent answers for names by other rules than today's.
const earlierNames = "c68f439"

// asking asks for one name of the server outside, again and again.
type asking struct {
	name string
	conn net.Conn

	mu  sync.Mutex
	got []string // addresses, "nxdomain", "lost"
}

// keepAsking asks from the container web until the test ends.
func (l *namesLab) keepAsking(name string) *asking {
	l.t.Helper()
	a := &asking{name: name}
	l.in(netnsPath("web"), func() {
		var err error
		a.conn, err = net.Dial("udp", net.JoinHostPort(worldAddr(false).String(), "53"))
		l.check(err)
	})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for id := uint16(1); ; id++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			one := a.once(id)
			a.mu.Lock()
			a.got = append(a.got, one)
			a.mu.Unlock()
		}
	})
	l.t.Cleanup(func() { close(stop); wg.Wait(); _ = a.conn.Close() })
	return a
}

// once says what came for one query. Only one that is lost makes it wait long.
func (a *asking) once(id uint16) string {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(a.name), dns.TypeA)
	m.Id = id
	wire, err := m.Pack()
	if err != nil {
		return err.Error()
	}
	if _, err := a.conn.Write(wire); err != nil {
		return err.Error()
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 512)
	for {
		n, err := a.conn.Read(buf)
		switch {
		case err != nil:
			return "lost"
		case m.Unpack(buf[:n]) != nil || m.Id != id:
			continue
		case m.Rcode == dns.RcodeNameError:
			return "nxdomain"
		case len(m.Answer) != 1:
			return m.String()
		}
		return strings.Fields(m.Answer[0].String())[4]
	}
}

// count says how often what came until now, and since from.
func (a *asking) count(from int) (all int, of map[string]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of = map[string]int{}
	for _, one := range a.got[from:] {
		of[one]++
	}
	return len(a.got), of
}

// steady waits for some more answers: they have to be these.
func (a *asking) steady(l *namesLab, want string) {
	l.t.Helper()
	from, _ := a.count(0)
	l.await("answers for "+a.name, func() bool { now, _ := a.count(from); return now > from+30 })
	_, got := a.count(from + 1) // the first one may have been asked before
	if len(got) != 1 || got[want] == 0 {
		l.t.Errorf("%s is %v, want %s only", a.name, got, want)
	}
}

// end ends the agent with a signal.
func (l *namesLab) end(signal syscall.Signal) {
	l.t.Helper()
	l.check(l.agent.cmd.Process.Signal(signal))
	l.agent.done <- <-l.agent.done
}

// An agent is replaced by another build, forth and back, under containers that the earlier one
// knew: while there is none, foreign queries pass and names are not known; a query is lost only
// if it waits in the agent that ends.
func TestNamesUpgrade(t *testing.T) {
	earlier := buildCommit(t, earlierNames, "./plugins/bridge-ln ./plugins/ipam-ln ./cmd/ln-agent")
	l := newNamesLab(t)
	builds := map[string]string{"earlier": filepath.Join(earlier, "ln-agent"), "this": program(t, "ln-agent")}
	l.startBuild(builds["earlier"])
	for _, name := range []string{"web", "api"} { // as their host had them before
		l.netns(name)
		r := l.runProgram(filepath.Join(earlier, "bridge-ln"), l.call(name, "front", 0).as("ADD"))
		if r.code != 0 {
			t.Fatalf("ADD by the earlier build: %s", r.msg)
		}
		l.at[name+"/front"] = parseResult(t, r.stdout).addresses(t)
	}
	address, foreign := l.address("api", "front", false), "203.0.113.7"
	api, outside := l.keepAsking("api"), l.keepAsking("outside.test")
	for i, c := range []struct {
		signal syscall.Signal
		next   string
	}{{unix.SIGTERM, "this"}, {unix.SIGKILL, "this"}, {unix.SIGTERM, "earlier"}, {unix.SIGKILL, "this"}} {
		what := fmt.Sprintf("change %d, by %s to %s build", i, c.signal, c.next)
		l.await(what+": names before", func() bool { return l.answers(query{from: "web", name: "api", network: "tcp"}) == address })
		api.steady(l, address)
		outside.steady(l, foreign)
		fromAPI, _ := api.count(0)
		fromOutside, _ := outside.count(0)

		l.end(c.signal)
		l.gap(what, foreign)
		api.steady(l, "nxdomain") // from outside
		l.startBuild(builds[c.next])
		l.await(what+": names after", func() bool { return l.answers(query{from: "web", name: "api"}) == address })

		if _, got := outside.count(fromOutside); got["lost"] > 1 || got["lost"]+got[foreign] != total(got) {
			t.Errorf("%s: foreign queries meanwhile: %v", what, got)
		}
		if _, got := api.count(fromAPI); got["lost"] > 1 || got["lost"]+got[address]+got["nxdomain"] != total(got) {
			t.Errorf("%s: queries for names meanwhile: %v", what, got)
		}
	}
	l.join("late", "front")
	if got := l.answers(query{from: "api", name: "late"}); got != l.address("late", "front", false) {
		t.Errorf("a container that comes after: %s", got)
	}
	l.must(l.call("api", "front", 0).as("DEL")) // of the earlier build's
	if got := l.answers(query{from: "web", name: "api"}); got != "nxdomain" {
		t.Errorf("a container of the earlier build's that is gone: %s", got)
	}
}

// gap says what containers see while there is no agent.
func (l *namesLab) gap(when, foreign string) {
	l.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		if got := l.answers(query{from: "web", name: "outside.test", network: network}); got != foreign {
			l.t.Errorf("%s: foreign query over %s without an agent: %s", when, network, got)
		}
	}
}

func total(of map[string]int) (n int) {
	for _, each := range of {
		n += each
	}
	return n
}
