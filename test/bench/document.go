package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The text between these lines of performance.md is the last run's; the rest is written by
// hand.
const (
	begin = "<!-- what follows is written by make bench -->"
	end   = "<!-- end of what is written by make bench -->"
)

const plotName = "add-latency.svg"

// write puts the report into performance.md, and the plot beside it.
func (r *report) write(docs string, on *table) error {
	path := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	before, rest, found := bytes.Cut(old, []byte(begin+"\n"))
	_, after, closed := bytes.Cut(rest, []byte(end+"\n"))
	if len(old) == 0 {
		before = []byte("# Performance\n\n")
	} else if !found || !closed {
		return fmt.Errorf("%s: the lines %q and %q are not in it", path, begin, end)
	}
	text := fmt.Sprintf("%s%s\n\n%s\n## Targets\n\n%s\n![ADD latency against containers present](%s)\n%s\n%s\n%s",
		before, begin, on, r.targetTable(), plotName, r.text.String(), end, after)
	return errors.Join(
		os.WriteFile(filepath.Join(docs, plotName), []byte(r.plot.svg()), 0o644),
		os.WriteFile(path, []byte(text), 0o644))
}

// machine says what the figures are measured on, and how busy it was before.
func machine(rounds int) *table {
	var name unix.Utsname
	_ = unix.Uname(&name)
	t := &table{columns: []string{"", "measured on"}}
	t.row("date", fmt.Sprintf("%s, -n %d", time.Now().UTC().Format("2006-01-02 15:04 MST"), rounds))
	t.row("machine", fmt.Sprintf("%d × %s, memory: %s", runtime.NumCPU(), value("/proc/cpuinfo", "model name"), value("/proc/meminfo", "MemTotal")))
	load, _ := os.ReadFile("/proc/loadavg")
	t.row("load before", strings.Join(strings.Fields(string(load))[:3], " "))
	t.row("kernel", unix.ByteSliceToString(name.Release[:]))
	t.row("ours", os.Getenv("VERSION")+", "+runtime.Version())
	t.row("reference", "containernetworking/plugins "+os.Getenv("REFERENCE"))
	t.row("nft, iptables", firstLine("nft", "--version")+", "+firstLine("iptables", "--version"))
	return t
}

// value is that of the first line "key: value" of a file.
func value(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return name + " unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
