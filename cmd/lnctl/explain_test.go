package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/cmd/lnctl/explain"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// Explain's commands are what ADD makes: after ADD the rules that they add are there already,
// and so are links, addresses and routes. Nothing is made by explain itself.
func TestExplain(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../conf/examples/*.conflist")
	if err != nil || len(files) < 15 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".conflist")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(`"overlay-ln"`)) || slices.ContainsFunc([]string{"35-", "40-", "63-", "74-"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue // their addresses are chosen, or come from other hosts and plugins
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newExplainer(t, file)
			steps := e.explain()
			if out, _ := exec.Command("nft", "list", "ruleset").Output(); len(bytes.TrimSpace(out)) > 0 {
				t.Fatalf("explain made rules: %s", out)
			}
			e.add()
			for _, s := range steps {
				for _, c := range s.Commands {
					e.holds(c)
				}
			}
		})
	}
}

type explainer struct {
	*lab
	file string
	conf []byte // of the plugin
}

func newExplainer(t *testing.T, file string) *explainer {
	t.Helper()
	l := newLab(t)
	lntest.BindNetns(t, netnsOf("c1"))
	data, err := os.ReadFile(file)
	l.must(err)
	var list struct {
		Name    string
		Plugins []map[string]any
	}
	l.must(json.Unmarshal(data, &list))
	list.Plugins[0]["name"], list.Plugins[0]["cniVersion"] = list.Name, "1.0.0"
	conf, err := json.Marshal(list.Plugins[0])
	l.must(err)
	return &explainer{l, file, conf}
}

func (e *explainer) explain() []explain.Step {
	e.t.Helper()
	var got []struct {
		Steps []explain.Step
		Keys  []explain.Key
	}
	e.must(json.Unmarshal([]byte(e.lnctl(exitOK, "explain", e.file, "--container", "c1", "-o", "json")), &got))
	if len(got) != 1 || len(got[0].Keys) < 20 || len(got[0].Steps) < 2 {
		e.t.Fatalf("%+v", got)
	}
	return got[0].Steps
}

func (e *explainer) add() {
	e.t.Helper()
	bin := os.Getenv("BIN")
	if bin == "" {
		bin = "../../bin"
	}
	cmd := exec.Command(filepath.Join(bin, "bridge-ln"))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" + netnsOf("c1"), "CNI_IFNAME=eth0", "CNI_PATH=" + bin}
	cmd.Stdin = bytes.NewReader(e.conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("ADD: %v: %s", err, out)
	}
}

// holds fails the test if the host lacks what a command makes.
func (e *explainer) holds(command string) {
	e.t.Helper()
	command = strings.ReplaceAll(command, "CONTAINER", "c1")
	words := strings.Fields(command)
	in := []string{}
	if words[1] == "-n" {
		words, in = append(words[:1], words[3:]...), []string{"nsenter", "--net=" + netnsOf("c1")}
	}
	has := func(want string, args ...string) {
		e.t.Helper()
		args = append(slices.Clone(in), args...)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			e.t.Errorf("%s: no %q in %s: %v", command, want, out, err)
		}
	}
	switch {
	case words[0] == "nft" && strings.Contains(command, "02:00:00:00:00:01"): // the MAC is another one
	case words[0] == "nft":
		e.elementThere(command)
		if _, comment, given := strings.Cut(command, "comment "); given {
			has(strings.Split(comment, `"`)[1], "nft", "list", "set", words[3], words[4], words[5])
		}
	case strings.HasPrefix(command, "ip link add") && words[4] == "bridge":
		has(words[3], "ip", "-d", "link", "show", "type", "bridge")
	case strings.HasPrefix(command, "ip link add"):
		has(words[3], "ip", "link", "show", "type", "veth")
	case words[1] == "address":
		has(words[3], "ip", "address", "show", "dev", words[5])
	case words[1] == "route" && words[3] == "default":
		family := "-4"
		if strings.Contains(words[5], ":") {
			family = "-6"
		}
		has(words[5], "ip", family, "route", "show", "default", "dev", words[7])
	case words[1] == "link" && words[len(words)-2] == "alias":
		has(words[len(words)-1], "ip", "link", "show", words[3])
	}
}

// elementThere says that an element is there: it cannot be created once more.
func (e *explainer) elementThere(command string) {
	e.t.Helper()
	out, err := exec.Command("sh", "-c", strings.Replace(command, "nft add", "nft create", 1)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "exists") {
		e.t.Errorf("%s: was not there: %s", command, out)
	}
}
