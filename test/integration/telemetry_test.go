package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// telling is a configuration whose calls are logged.
func telling(t *testing.T, file, level string) string {
	return edit(t, good, keys{"log": raw(fmt.Sprintf(`{"file":%q,"level":%q}`, file, level))})
}

type told struct {
	Level, Msg, Network, Container, Error, Warning string
	Code, US                                       int
	Steps                                          []struct {
		Step   string
		At, US int
	}
	Conf map[string]any
}

func logged(t *testing.T, file string) (all []told) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(data) {
		var one told
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, one)
	}
	return all
}

// Each call is a line, whose steps are the call's; where it cannot be written all goes as ever.
func TestCallsLogged(t *testing.T) {
	h := newHost(t)
	const file = "/run/libnet.log"
	c := attachment("bridge-ln", "c1", h.netns("c1"), telling(t, file, "info"))
	h.must(c.as("ADD"))
	h.must(c.as("DEL"))
	h.must(c.as("GC"))
	if r := h.run(c.with(edit(t, c.stdin, keys{"mtu": "big"})).as("ADD")); r.code != codeConfig {
		t.Errorf("code %d", r.code)
	}
	all := logged(t, file)
	var words []string
	for _, l := range all {
		var steps []string
		sum := 0
		for _, s := range l.Steps {
			steps, sum = append(steps, s.Step), sum+s.US
		}
		words = append(words, fmt.Sprintf("%s %s %d %s", l.Level, l.Msg, l.Code, strings.Join(steps, " ")))
		if sum > l.US || sum < l.US-len(l.Steps) || l.Network != "net" {
			t.Errorf("steps of %d us in %+v", sum, l)
		}
	}
	want := []string{
		"info ADD 0 read open lock record lease ports rules bridge connections link names forwarding connections ready others result",
		"info DEL 0 read open lock record ports rules link connections lease record",
		"info GC 0 read open collect",
		"error ADD 7 read",
	}
	if got := strings.Join(words, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	for _, bad := range []string{"/dev/full", "/none/log", "/run"} {
		c := attachment("bridge-ln", "c2", h.netns("c2"+strings.ReplaceAll(bad, "/", "-")), telling(t, bad, "debug"))
		for _, verb := range []string{"ADD", "DEL", "STATUS"} {
			r := h.run(c.as(verb))
			if says := strings.Contains(r.stderr, "log: "); r.code != 0 || says != (verb == "STATUS") {
				t.Errorf("%s: %s: code %d, %s, stderr %q", bad, verb, r.code, r.msg, r.stderr)
			}
		}
	}
}

// One file has the lines of all plugins of a list, and defaults of the host say so for all.
func TestCallsLoggedByDefaults(t *testing.T) {
	h := newHost(t)
	const file = "/run/libnet.log"
	h.layers(map[string]string{"defaults.json": `{"log":{"file":"` + file + `","level":"debug"}}`})
	h.must(attachment("bridge-ln", "c1", h.netns("c1"), good).as("ADD"))
	publish := edit(t, `{"cniVersion":"1.1.0","name":"net","type":"portmap-ln"}`, keys{"prevResult": prevResult("eth0"), "log": raw(`{"file":"` + file + `"}`)})
	h.must(attachment("portmap-ln", "c1", h.netns("c3"), publish).as("ADD"))
	all := logged(t, file)
	if len(all) != 2 || all[0].Conf["log"] == nil || all[1].Conf != nil {
		t.Errorf("%+v", all)
	}
}

const traceID, spanID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

// The steps of an ADD get to a collector of OpenTelemetry, below the span of the caller, and into
// the agent's histograms.
func TestCallsTraced(t *testing.T) {
	h := newHost(t)
	collector := &tail{}
	h.daemon(collector, "otelcol", "--config", `yaml:{receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:4318"}}}}, exporters: {debug: {verbosity: detailed}}, service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}}`)
	agent := &tail{}
	h.daemon(agent, "ln-agent", "--local", "--otlp-endpoint", "http://127.0.0.1:4318")
	if !lntest.Await(agentPatience, func() bool { _, err := os.Stat("/run/libnet/trace.sock"); return err == nil && h.metrics() != "" }) {
		t.Fatalf("no socket: %s", agent)
	}
	c := attachment("bridge-ln", "c1", h.netns("c1"), good)
	c.env = []string{"TRACEPARENT=00-" + traceID + "-" + spanID + "-01"}
	h.must(c.as("ADD"))
	c.env = nil // counted, and not traced
	h.must(c.as("DEL"))

	span := regexp.MustCompile(`(?s)Trace ID +: (\w+)\s+Parent ID +: (\w*)\s+ID +: (\w+)\s+Name +: ([^\n]+)\n`)
	var found [][]string
	if !lntest.Await(agentPatience, func() bool {
		found = span.FindAllStringSubmatch(collector.String(), -1)
		return len(found) >= 16
	}) {
		t.Fatalf("%d spans: %s\n%s", len(found), collector, agent)
	}
	ids, steps := "", []string{}
	for _, s := range found {
		switch name := strings.TrimSpace(s[4]); {
		case s[1] != traceID:
			t.Errorf("%q is of another trace", s)
		case s[2] == spanID:
			ids, steps = s[3], append(steps, name)
		case s[2] == ids:
			steps = append(steps, name)
		default:
			t.Errorf("%q is below neither caller nor call", s)
		}
	}
	const want = "bridge-ln ADD read open lock record lease ports rules bridge connections link names forwarding connections ready others result"
	if got := strings.Join(steps, " "); got != want {
		t.Errorf("spans %s, want %s", got, want)
	}
	for _, line := range []string{
		`libnet_call_duration_seconds_count{command="ADD",plugin="bridge-ln",result="ok"} 1`,
		`libnet_call_duration_seconds_count{command="DEL",plugin="bridge-ln",result="ok"} 1`,
		`libnet_call_step_duration_seconds_count{command="ADD",step="lease"} 1`,
		"libnet_spans_sent_total 1",
	} {
		if !lntest.Await(agentPatience, func() bool { return strings.Contains(h.metrics(), "\n"+line+"\n") }) {
			t.Errorf("no %s in\n%s", line, h.metrics())
		}
	}
}

// daemon runs a program until the test ends.
func (h *host) daemon(stderr io.Writer, name string, args ...string) {
	h.t.Helper()
	cmd := exec.Command(program(h.t, name), args...)
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	h.check(cmd.Start())
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// metrics are those of ln-agent; empty: it does not answer.
func (h *host) metrics() string {
	c, err := net.DialTimeout("tcp", "127.0.0.1:9468", agentPatience)
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	h.check(c.SetDeadline(time.Now().Add(agentPatience)))
	_, err = io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n")
	h.check(err)
	data, err := io.ReadAll(c)
	h.check(err)
	return string(data)
}
