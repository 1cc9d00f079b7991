package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func call(failed bool) *Call {
	s := NewSteps(time.Now().Add(-5 * time.Millisecond))
	s.At("lease")
	s.At("link")
	c := &Call{Plugin: "bridge-ln", Version: "v1", Command: "ADD", Network: "net", ContainerID: "c1", IfName: "eth0", Steps: s, Conf: []byte("{\n \"mtu\": 1400\r\n}")}
	if failed {
		c.Code, c.Error = 7, "mtu: \"big\""
	}
	return c
}

type line struct {
	Time                      time.Time
	Level, Msg, Network, Conf any
	Code, US                  int
	Error, Warning            string
	Steps                     []struct {
		Step   string
		At, US int
	}
}

// A call is a line, of which the steps are as long as the call.
func TestLog(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	if err := call(false).Log(file, Info); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	var l line
	if err = errors.Join(err, json.Unmarshal(data, &l)); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	sum := 0
	for _, s := range l.Steps {
		sum += s.US
	}
	if l.Level != "info" || l.Msg != "ADD" || l.Network != "net" || len(l.Steps) != 3 || l.Steps[0].Step != "read" || l.US < 5000 || sum < l.US-3 || sum > l.US || l.Conf != nil {
		t.Errorf("%s", data)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// Each level has its calls.
func TestLevels(t *testing.T) {
	t.Parallel()
	warned := call(false)
	warned.Warnings = []string{"a", "b"}
	for level, want := range map[Level]string{
		Debug: "info warn error conf conf conf", Info: "info warn error", Warn: "warn error", Error: "error",
	} {
		file := filepath.Join(t.TempDir(), "log")
		for _, c := range []*Call{call(false), warned, call(true)} {
			if err := c.Log(file, level); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got, confs []string
		for text := range bytes.Lines(data) {
			var l line
			if err := json.Unmarshal(text, &l); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			got = append(got, l.Level.(string))
			if l.Conf != nil {
				confs = append(confs, "conf")
			}
			if l.Level == "error" && (l.Code != 7 || l.Error != `mtu: "big"`) || l.Level == "warn" && l.Warning != "a; b" {
				t.Errorf("%s", text)
			}
		}
		if got := strings.Join(append(got, confs...), " "); got != want {
			t.Errorf("%s: %s, want %s", level, got, want)
		}
	}
}

// Lines of calls at a time do not mix.
func TestLogAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 20 {
				c := call(true)
				c.Error = strings.Repeat("long ", 300)
				if err := c.Log(file, Info); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for text := range bytes.Lines(data) {
		n++
		if !json.Valid(text) {
			t.Fatalf("line %d: %s", n, text)
		}
	}
	if n != 1000 {
		t.Errorf("%d lines, want 1000", n)
	}
}

// Log says why there is no line, and never waits.
func TestLogFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]error{
		filepath.Join(dir, "none", "log"): syscall.ENOENT, dir: syscall.EISDIR, "/dev/full": syscall.ENOSPC, fifo: syscall.ENXIO,
	} {
		if err := call(false).Log(file, Info); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", file, err, want)
		}
	}
}

// The agent gets what the call was; one that does not read costs the call nothing.
func TestSend(t *testing.T) {
	t.Parallel()
	socket := Socket(t.TempDir())
	if Listened(socket) {
		t.Error("listened to by none")
	}
	call(false).Send(socket)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !Listened(socket) {
		t.Error("not listened to")
	}
	c := call(true)
	c.Parent, c.Error = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", strings.Repeat("ü", 5000)
	for range 5000 { // far more than the socket takes
		c.Send(socket)
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	var r Received
	if err = errors.Join(err, json.Unmarshal(buf[:n], &r)); err != nil {
		t.Fatal(err)
	}
	if r.Command != "ADD" || r.Network != "net" || r.Container != "c1" || r.TraceParent != c.Parent || r.Code != 7 || len(r.Error) > longest+5 ||
		r.Start != c.Steps.start.UnixNano() || r.NS < 5e6 || len(r.Steps) != 3 || r.Steps[1].Step != "lease" || r.Steps[1].At == 0 {
		t.Errorf("%+v", r)
	}
}

func TestParseParent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	p, err := ParseParent(good)
	if err != nil || !p.Sampled || p.Trace[0] != 0x0a || p.Span[7] != 0x31 {
		t.Errorf("%+v %v", p, err)
	}
	if p, err := ParseParent(good[:53] + "02"); err != nil || p.Sampled {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := ParseParent("cc" + good[2:] + "-what-follows"); err != nil {
		t.Errorf("of a later version: %v", err)
	}
	for _, bad := range []string{
		"", "00", good[:54], good + "0", good + "-x", "ff" + good[2:], strings.ToUpper(good), strings.Replace(good, "0af", "0ag", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		if p, err := ParseParent(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, p)
		}
	}
}

// Not measured, steps cost nothing.
func TestNoSteps(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { (*Steps)(nil).At("x") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	s := NewSteps(time.Now())
	for range 10 * MostSteps {
		s.At("x")
	}
	if len(s.all) != MostSteps {
		t.Errorf("%d steps", len(s.all))
	}
}
