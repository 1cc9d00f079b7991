// Package report tells what a call of a plugin did, with the time that each step took: in a line
// of a log, and in a datagram to ln-agent, which makes metrics and traces of it. Telling fails
// no call: a full disk, a directory that is missing and an agent that is busy are passed over.
package report

import (
	"encoding/hex"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/jsonw"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Steps are what a call does, one after the other. A nil *Steps measures nothing, at no cost.
type Steps struct {
	start time.Time
	all   []Step
}

// Step is one of them. It ends where the next one begins.
type Step struct {
	Name  string
	Start time.Duration // since the call began
}

// MostSteps bounds what is kept: GC may collect thousands of attachments.
const MostSteps = 64

// NewSteps measures a call that began at a time, by reading its configuration.
func NewSteps(start time.Time) *Steps { return &Steps{start: start, all: []Step{{Name: "read"}}} }

// At says that a step begins.
func (s *Steps) At(name string) {
	if s != nil && len(s.all) < MostSteps {
		s.all = append(s.all, Step{name, time.Since(s.start)})
	}
}

// Call is what a call did.
type Call struct {
	Plugin, Version              string // of the binary
	Command                      string
	Network, ContainerID, IfName string
	// Parent is the TRACEPARENT of the caller; empty: it does not trace.
	Parent   string
	Steps    *Steps
	Warnings []string // lines on stderr
	Code     uint     // of CNI; 0: it succeeded
	Error    string
	// Conf, Netns and Args are told at the level "debug" alone.
	Conf        []byte // an object
	Netns, Args string
}

// Level says which calls are logged: those as grave, and graver ones.
type Level string

// The levels.
const (
	Debug Level = "debug" // all calls, with their configurations
	Info  Level = "info"  // all calls
	Warn  Level = "warn"  // calls that failed, or had a line on stderr
	Error Level = "error" // calls that failed
)

// Levels are all of them, the default first.
func Levels() []Level { return []Level{Info, Debug, Warn, Error} }

func (l Level) rank() int {
	switch l {
	case Debug:
		return 0
	case Warn:
		return 2
	case Error:
		return 3
	}
	return 1
}

func (c *Call) level() Level {
	switch {
	case c.Code != 0:
		return Error
	case len(c.Warnings) > 0:
		return Warn
	}
	return Info
}

// Log appends a line of JSON about the call to a file, in one write, so that lines of calls at a
// time do not mix. No call fails by the error.
func (c *Call) Log(file string, at Level) error {
	level := c.level()
	if level.rank() < at.rank() {
		return nil
	}
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		return &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var o jsonw.Object
	o.String("time", c.Steps.start.UTC().Format(time.RFC3339Nano))
	o.String("level", string(level))
	o.String("msg", c.Command)
	c.encode(&o, time.Microsecond, "us")
	if at == Debug {
		o.OptionalString("netns", c.Netns)
		o.OptionalString("args", c.Args)
		if len(c.Conf) > 0 {
			o.Raw("conf", flat(c.Conf))
		}
	}
	line := append(o.Bytes(), '\n')
	n, err := unix.Write(fd, line)
	if err == nil && n < len(line) {
		err = unix.ENOSPC
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// flat is JSON without line ends, which can stand outside of strings only.
func flat(text []byte) []byte {
	flat := make([]byte, len(text))
	for i, b := range text {
		if flat[i] = b; b == '\n' || b == '\r' {
			flat[i] = ' '
		}
	}
	return flat
}

// encode writes what log and datagram have in common, with times in a unit.
func (c *Call) encode(o *jsonw.Object, unit time.Duration, suffix string) {
	o.String("plugin", c.Plugin)
	o.OptionalString("version", c.Version)
	o.OptionalString("network", c.Network)
	o.OptionalString("container", c.ContainerID)
	o.OptionalString("ifname", c.IfName)
	o.OptionalString("traceparent", c.Parent)
	if c.Code != 0 {
		o.Int("code", int(c.Code))
		o.String("error", cut(c.Error))
	}
	if len(c.Warnings) > 0 {
		o.String("warning", cut(strings.Join(c.Warnings, "; ")))
	}
	end := time.Since(c.Steps.start)
	o.Int(suffix, int(end/unit))
	all := c.Steps.all
	o.Objects("steps", len(all), func(i int, o *jsonw.Object) {
		until := end
		if i+1 < len(all) {
			until = all[i+1].Start
		}
		o.String("step", all[i].Name)
		o.Int("at", int(all[i].Start/unit))
		o.Int(suffix, int((until-all[i].Start)/unit))
	})
}

// longest bounds a text, in bytes: a datagram has to fit.
const longest = 2000

func cut(s string) string {
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}

// Socket is where ln-agent takes datagrams, by the directory of the records.
func Socket(stateDir string) string { return filepath.Join(stateDir, "trace.sock") }

// Listened says whether an ln-agent may take datagrams there.
func Listened(socket string) bool { return unix.Access(socket, unix.W_OK) == nil }

// Send sends the call to ln-agent, unless that is away or has no time.
func (c *Call) Send(socket string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	var o jsonw.Object
	o.Int("start", int(c.Steps.start.UnixNano()))
	o.String("command", c.Command)
	c.encode(&o, time.Nanosecond, "ns")
	_ = unix.Sendto(fd, o.Bytes(), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: socket}) // nothing is missed but the report
}

// Received is a call as ln-agent gets it. Times are in nanoseconds.
type Received struct {
	Start       int64 // since 1970
	Command     string
	Plugin      string
	Version     string
	Network     string
	Container   string
	IfName      string
	TraceParent string
	Code        uint
	Error       string
	Warning     string
	NS          int64
	Steps       []struct {
		Step   string
		At, NS int64
	}
}

// Parent is where a trace goes on (W3C Trace Context).
type Parent struct {
	Trace   [16]byte
	Span    [8]byte
	Sampled bool
}

var errParent error = &sentinel.Error{Text: "no traceparent"}

// ParseParent reads a TRACEPARENT, "00-<trace>-<span>-<flags>".
func ParseParent(text string) (p Parent, err error) {
	parts := strings.Split(text, "-")
	if len(parts) < 4 || len(parts) > 4 && parts[0] == "00" || len(parts[0]) != 2 || parts[0] == "ff" || len(parts[3]) != 2 {
		return p, errParent
	}
	var flags [1]byte
	for i, to := range [][]byte{{0}, p.Trace[:], p.Span[:], flags[:]} {
		if len(parts[i]) != hex.EncodedLen(len(to)) || strings.ToLower(parts[i]) != parts[i] {
			return p, errParent
		}
		if _, err := hex.Decode(to, []byte(parts[i])); err != nil {
			return p, errParent
		}
	}
	if p.Trace == [16]byte{} || p.Span == [8]byte{} {
		return p, errParent
	}
	p.Sampled = flags[0]&1 != 0
	return p, nil
}
