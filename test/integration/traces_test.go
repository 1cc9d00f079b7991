package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorded is a call that a runtime made of a reference plugin. testdata/traces
// has the calls of one runtime per file, in their order; IDs and paths are made
// up, and a prevResult is "given" where there was one.
type recorded struct {
	Plugin, Command string
	Env             map[string]string
	Stdin           json.RawMessage
	RC              int
}

// TestTraces plays what runtimes do with the reference plugins to ours. The
// reference bridge runs host-local itself, so both are in a trace; ours are
// played one at a time. portmap's calls are not played: it is not ours.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/traces/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		trace := readTrace(t, file)
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		for _, as := range []map[string]string{
			{"bridge": "bridge-ln", "loopback": "loopback"},
			{"host-local": "ipam-ln"},
		} {
			t.Run(name+"/"+as["bridge"]+as["host-local"], func(t *testing.T) {
				t.Parallel()
				r := &replay{host: newHost(t), as: as, results: map[string]string{}, pending: map[string]call{}}
				r.play(trace)
			})
		}
	}
}

func readTrace(t *testing.T, file string) []recorded {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var trace []recorded
	for line := range bytes.Lines(data) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		trace = append(trace, r)
	}
	return trace
}

// replay is one trace being played.
type replay struct {
	*host
	as      map[string]string // reference plugin to the one called instead
	results map[string]string // of ADD, by plugin, container and interface
	pending map[string]call   // attachments not taken away
}

func (r *replay) play(trace []recorded) {
	r.t.Helper()
	before := r.snapshot()
	var last call
	for _, rec := range trace {
		if r.as[rec.Plugin] == "" {
			continue
		}
		c := r.translate(rec)
		key := rec.Plugin + " " + c.cid + " " + c.ifName
		reply := r.run(c)
		if failed := reply.code != 0; failed != (rec.RC != 0) {
			r.t.Errorf("%s %s %s: code %d: %s; the reference exited with %d", c.plugin, c.command, c.cid, reply.code, reply.msg, rec.RC)
		}
		switch c.command {
		case "ADD":
			r.results[key], r.pending[key] = reply.stdout, c
			last = c
		case "DEL":
			delete(r.pending, key)
		}
	}
	for _, c := range r.pending { // still running when the recording ended
		r.must(c.as("DEL"))
	}
	if len(r.results) == 0 {
		r.t.Fatal("nothing was added")
	}
	if last.plugin == "bridge-ln" {
		r.must(last.as("GC").with(edit(r.t, last.stdin, keys{"cniVersion": "1.1.0", "cni.dev/valid-attachments": []string{}})))
	}
	r.same(before)
}

// translate makes a recorded call one of ours, in a namespace of its own and
// with the result of the ADD before it.
func (r *replay) translate(rec recorded) call {
	r.t.Helper()
	c := call{
		plugin: r.as[rec.Plugin], command: rec.Command, stdin: string(rec.Stdin),
		cid: rec.Env["CNI_CONTAINERID"], ifName: rec.Env["CNI_IFNAME"], netns: rec.Env["CNI_NETNS"], args: rec.Env["CNI_ARGS"],
	}
	if rest, ok := strings.CutPrefix(c.netns, "/var/run/"); ok {
		c.netns = "/run/" + rest
	}
	if strings.HasPrefix(c.netns, "/run/netns/") && !exists(c.netns) {
		r.netns(filepath.Base(c.netns))
	}
	var conf struct {
		IPAM       json.RawMessage
		PrevResult json.RawMessage
	}
	if err := json.Unmarshal(rec.Stdin, &conf); err != nil {
		r.t.Fatal(err)
	}
	if conf.PrevResult != nil {
		prev := r.results[rec.Plugin+" "+c.cid+" "+c.ifName]
		c.stdin = edit(r.t, c.stdin, keys{"prevResult": raw(prev)})
	}
	if conf.IPAM != nil {
		c.stdin = edit(r.t, c.stdin, keys{"ipam.type": "ipam-ln"})
	}
	if path := rec.Env["CNI_PATH"]; !slices.Contains([]string{"", "/opt/cni/bin"}, path) {
		c.env = append(c.env, "CNI_PATH="+path)
	}
	return c
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
