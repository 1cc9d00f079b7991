package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// below gives the host the files of a directory as its templates and defaults.
func (h *host) below(dir string) {
	h.t.Helper()
	files := map[string]string{}
	h.check(filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, relErr := filepath.Rel(dir, path)
		files[name] = string(data)
		if err == nil {
			err = relErr
		}
		return err
	}))
	h.layers(files)
}

// layers gives the host files in /etc/cni/ln, of which only the test knows; "" removes one.
func (h *host) layers(files map[string]string) {
	h.t.Helper()
	const etc = "/etc/cni"
	var fs unix.Statfs_t
	if err := unix.Statfs(etc, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		if err := os.MkdirAll(etc, 0o755); err != nil {
			lntest.NeedsRoot(h.t, "makes "+etc)
		}
		h.check(unix.Mount("tmpfs", etc, "tmpfs", 0, ""))
	}
	for name, text := range files {
		path := filepath.Join(netconf.LayersDir, name)
		if text == "" {
			h.check(os.Remove(path))
			continue
		}
		h.check(os.MkdirAll(filepath.Dir(path), 0o755))
		h.check(os.WriteFile(path, []byte(text), 0o600))
	}
}

// completed is a configuration of a plugin with what lies below it.
func (h *host) completed(conf []byte) []byte {
	h.t.Helper()
	o, err := jsonr.Parse(conf)
	h.check(err)
	below, err := netconf.ReadBelow(netconf.LayersDir, o)
	h.check(err)
	plugin, kind := netconf.Bridge, ""
	if o.String("type", &kind); kind == netconf.Overlay.String() {
		plugin = netconf.Overlay
	}
	c, err := below.Complete(plugin, o)
	h.check(err)
	return c.Text
}

// The example lives as the others do.
func TestTemplateExample(t *testing.T) {
	newWalk(t, filepath.Join(examples, "ln", "10-web.conflist"), example{below: true, capArgs: web, publish: "host", mtu: worldMTU}).run()
}

// ln-agent, too, takes what a configuration leaves open from the files.
func TestTemplateWithAgent(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-net.conflist":      `{"cniVersion":"1.1.0","name":"lnt","plugins":[{"type":"overlay-ln","bridge":"ln-t","configFrom":"hosts","capabilities":{"portMappings":true}}]}`,
		"templates/hosts.json": `{"subnet":"10.77.0.0/16","vni":77}`,
		"defaults.json":        `{"blockSize":{"ipv4":26},"promiscMode":true}`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	newWalk(t, filepath.Join(dir, "10-net.conflist"), example{below: true, agent: true, capArgs: web, publish: "host", mtu: worldMTU - 50}).run()
}

const (
	webTemplate = `{"mtu":1400,"isGateway":true,"ipam":{"type":"ipam-ln","subnet":"10.61.0.0/24","dataDir":"/var/lib/leases"}}`
	ofTemplate  = `{"cniVersion":"1.1.0","name":"net","type":"bridge-ln","configFrom":"web"}`
	someDefault = `{"bridge":"br7","mtu":1300,"blockSize":{"ipv4":26},"ipam":{"cooldown":600,"strategy":"lowest"}}`
)

// A network is made as configuration, template and defaults say together. Its record keeps that,
// so all verbs work after the files are broken or gone.
func TestTemplate(t *testing.T) {
	h := newHost(t)
	h.layers(map[string]string{"defaults.json": someDefault, "templates/web.json": webTemplate})
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), ofTemplate)
	if r := h.run(c.as("STATUS")); r.code != 0 || r.stderr != "" {
		t.Fatalf("STATUS: %d %s %q", r.code, r.msg, r.stderr)
	}
	added := h.run(c.as("ADD"))
	if added.code != 0 || added.stderr != "" {
		t.Fatalf("ADD: %d %s %q", added.code, added.msg, added.stderr)
	}
	if l := h.link("br7"); l.Attrs().MTU != 1400 { // the template's, and not that of the defaults
		t.Errorf("MTU %d, want 1400", l.Attrs().MTU)
	}
	if _, err := os.Stat("/var/lib/leases/net"); err != nil {
		t.Errorf("leases: %v", err)
	}
	h.recorded(t, map[string]string{"mtu": "template web", "bridge": "defaults", "ipam.cooldown": "defaults", "ipam.subnet": "template web", "configFrom": "conf"})
	again := c.with(edit(t, ofTemplate, keys{"prevResult": raw(added.stdout)}))

	for _, files := range []map[string]string{
		{"defaults.json": "{", "templates/web.json": `{"mtu":`},
		{"defaults.json": "", "templates/web.json": ""},
	} {
		h.layers(files)
		if r := h.run(again.as("CHECK")); r.code != 0 || r.stderr != "" {
			t.Errorf("%v: CHECK: %d %s %q", files, r.code, r.msg, r.stderr)
		}
	}
	h.layers(map[string]string{"templates/x.json": "{}"})
	for _, verb := range []string{"STATUS", "ADD"} {
		other := attachment("bridge-ln", "c2", h.netns("c2"+verb), edit(t, ofTemplate, keys{"bridge": "br7"}))
		r := h.run(other.as(verb))
		if r.code != 0 || !strings.Contains(r.stderr, "template web is gone") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("the template is gone: %s: %d %s %q", verb, r.code, r.msg, r.stderr)
		}
	}
	for _, id := range []string{"c1", "c2"} {
		d := attachment("bridge-ln", id, "", ofTemplate)
		if r := h.run(d.as("DEL")); r.code != 0 || r.stderr != "" {
			t.Errorf("DEL: %d %s %q", r.code, r.msg, r.stderr)
		}
	}
	if leases, err := filepath.Glob("/var/lib/leases/net/10.61.*"); err != nil || len(leases) > 0 {
		t.Errorf("leases are left: %v %v", leases, err)
	}
	gc := c.with(edit(t, ofTemplate, keys{"cni.dev/valid-attachments": raw("[]")}))
	if r := h.run(gc.as("GC")); r.code != 0 || r.stderr != "" {
		t.Errorf("GC: %d %s %q", r.code, r.msg, r.stderr)
	}
	if _, err := netlink.LinkByName("br7"); err == nil {
		t.Error("the bridge of the defaults is left")
	}
	h.sameBut(before, "^file ")
	if left, _ := os.ReadDir("/run/libnet/networks"); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}

// recorded holds the origins in the network's record.
func (h *host) recorded(t *testing.T, want map[string]string) {
	t.Helper()
	data, err := os.ReadFile("/run/libnet/networks/net/network.json")
	h.check(err)
	var rec struct {
		Layers struct {
			Keys map[string]struct {
				From  string
				Value any
			}
		}
	}
	h.check(json.Unmarshal(data, &rec))
	for key, from := range want {
		if got := rec.Layers.Keys[key]; got.From != from || got.Value == nil {
			t.Errorf("%s is recorded as %+v, want it from %q", key, got, from)
		}
	}
	if _, has := rec.Layers.Keys["blockSize.ipv4"]; has {
		t.Error("a key of overlay-ln alone is recorded for bridge-ln")
	}
}

// A template stays while a configuration names it, and lnctl says which. Network inspect tells from
// where each key of a network is, also when the files are gone.
func TestTemplateRemove(t *testing.T) {
	h := newHost(t)
	h.layers(map[string]string{"defaults.json": someDefault, "templates/web.json": webTemplate, "templates/bare.json": `{"mtu":1300}`})
	confs := t.TempDir()
	files := map[string]string{ // those of a foreign plugin name no template of ours
		"10-net.conf":      ofTemplate,
		"20-two.conflist":  `{"cniVersion":"1.1.0","name":"two","plugins":[{"type":"bridge-ln","configFrom":"web"}]}`,
		"30-three.conf":    `{"cniVersion":"1.1.0","name":"three","type":"bridge","configFrom":"bare"}`,
		"40-four.conflist": `{`,
	}
	for name, text := range files {
		h.check(os.WriteFile(filepath.Join(confs, name), []byte(text), 0o600))
	}
	lnctl := func(ok bool, args ...string) string {
		t.Helper()
		out, err := exec.Command(program(t, "lnctl"), args...).CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("lnctl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	wants := func(got string, all ...string) {
		t.Helper()
		for _, want := range all {
			if !strings.Contains(got, want) {
				t.Errorf("want %q in\n%s", want, got)
			}
		}
	}
	c := attachment("bridge-ln", "c1", h.netns("c1"), ofTemplate)
	h.must(c.as("ADD"))
	wants(lnctl(true, "template", "ls", "--conf-dir", confs), "web   net, two  "+netconf.LayersDir+"/templates/web.json", "bare  -         "+netconf.LayersDir+"/templates/bare.json")
	rm := func(ok bool, name string) string {
		t.Helper()
		return lnctl(ok, "template", "rm", name, "--conf-dir", confs)
	}
	wants(rm(false, "web"), filepath.Join(confs, "10-net.conf")+` (network "net")`, filepath.Join(confs, "20-two.conflist")+` (network "two")`)
	h.check(os.Remove(filepath.Join(confs, "10-net.conf")))
	wants(rm(false, "web"), `(network "two")`)
	h.check(os.Remove(filepath.Join(confs, "20-two.conflist")))
	wants(rm(true, "web"), "removed template web")
	wants(rm(true, "bare"), "removed template bare")
	if left, err := os.ReadDir(filepath.Join(netconf.LayersDir, "templates")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	wants(rm(false, "web"), `there is no template "web"`)
	wants(rm(false, "../defaults"), `there is no template "../defaults"`)
	got := lnctl(true, "network", "inspect", "net")
	wants(got, "KEY  ")
	for key, want := range map[string]string{
		"mtu": "1400 template web", "bridge": `"br7" defaults`, "ipam.cooldown": "600 defaults", "ipam.subnet": `"10.61.0.0/24" template web`, "configFrom": `"web" conf`,
	} {
		wants(strings.Join(strings.Fields(got), " "), " "+key+" "+want)
	}
	wants(lnctl(true, "network", "inspect", "net", "-o", "json"), `"from": "template web"`)
	h.must(c.as("DEL"))
}

// A foreign IPAM that only a template names is called by ADD and by DEL, with its keys.
func TestTemplateOfForeignIPAM(t *testing.T) {
	h := newHost(t)
	h.layers(map[string]string{
		"defaults.json":      `{"ipam":{"cooldown":60,"subnet":"auto/24"}}`,
		"templates/web.json": `{"bridge":"br8","ipam":{"type":"host-local","ranges":[[{"subnet":"10.62.0.0/24"}]],"dataDir":"/var/lib/leases"}}`,
	})
	c := attachment("bridge-ln", "c1", h.netns("c1"), ofTemplate)
	if r := h.run(c.as("ADD")); r.code != 0 {
		t.Fatalf("ADD: %d %s", r.code, r.msg)
	}
	if leases, _ := filepath.Glob("/var/lib/leases/net/10.62.*"); len(leases) != 1 {
		t.Errorf("leases: %v", leases)
	}
	other := attachment("bridge-ln", "c2", h.netns("c2"), ofTemplate)
	for _, lost := range []string{"layered", "network.json"} { // the files tell it
		h.must(other.as("ADD"))
		h.check(os.Remove("/run/libnet/networks/net/" + lost))
		h.must(other.as("DEL"))
		if leases, _ := filepath.Glob("/var/lib/leases/net/10.62.*"); len(leases) != 1 {
			t.Errorf("without %s: leases: %v", lost, leases)
		}
	}
	h.must(other.as("ADD")) // writes the record again
	h.layers(map[string]string{"templates/web.json": "", "defaults.json": ""})
	for _, c := range []call{c, other} {
		if r := h.run(c.as("DEL")); r.code != 0 {
			t.Errorf("DEL: %d %s", r.code, r.msg)
		}
	}
	if leases, _ := filepath.Glob("/var/lib/leases/net/10.62.*"); len(leases) != 0 {
		t.Errorf("leases are left: %v", leases)
	}
}

// ADD and STATUS refuse a wrong file, name it and the key, and change nothing.
func TestTemplateRefused(t *testing.T) {
	const web, defaults = "/etc/cni/ln/templates/web.json: ", "/etc/cni/ln/defaults.json: "
	for name, tt := range map[string]struct {
		files map[string]string
		conf  keys
		says  string
	}{
		"no template":        {nil, nil, `configFrom: "web": want the name of a template: there is no /etc/cni/ln/templates/web.json`},
		"a path":             {nil, keys{"configFrom": "../web"}, `configFrom: "../web": want the name of a template`},
		"no JSON":            {map[string]string{"templates/web.json": `{"mtu":}`}, nil, web + "not valid JSON: "},
		"defaults no JSON":   {map[string]string{"defaults.json": `[]`}, keys{"configFrom": nil}, defaults + "the configuration: []: want an object"},
		"value":              {map[string]string{"templates/web.json": `{"gatewayMode":"open"}`}, nil, web + `gatewayMode: "open": want `},
		"value of defaults":  {map[string]string{"templates/web.json": `{}`, "defaults.json": `{"ipam":{"type":"ipam-ln","cooldown":-1}}`}, nil, defaults + `ipam.cooldown: -1: want `},
		"contradiction":      {map[string]string{"templates/web.json": `{"hairpinMode":true,"promiscMode":true}`}, nil, web},
		"misspelt":           {map[string]string{"templates/web.json": `{"gatewaymod":"nat"}`}, nil, web + `gatewaymod: "nat": want gatewayMode: `},
		"vendor's":           {map[string]string{"defaults.json": `{"example.com/x":1}`}, keys{"configFrom": nil}, defaults + `example.com/x: 1: this is no key of`},
		"twice":              {map[string]string{"templates/web.json": `{"mtu":1,"MTU":2}`}, nil, web + "MTU: 2: "},
		"a network":          {map[string]string{"templates/web.json": `{"name":"net"}`}, nil, web + `name: "net": want no such key in a template: it is a network's`},
		"another template":   {map[string]string{"templates/web.json": `{"configFrom":"x"}`}, nil, web + `configFrom: "x": want no such key in a template`},
		"internal":           {map[string]string{"templates/web.json": `{"internal":true}`}, nil, web + `internal: true: want no such key in a template`},
		"records' directory": {map[string]string{"defaults.json": `{"stateDir":"/x"}`}, keys{"configFrom": nil}, defaults + `stateDir: "/x": want no such key in a file of defaults`},
		"final":              {map[string]string{"templates/web.json": `{"final":true,"ipam":{"type":"ipam-ln","subnet":"auto/24"}}`}, keys{"ipam.subnet": "auto/26"}, `ipam.subnet: "auto/26": want no such key: the template is final (` + web[:len(web)-2] + ")"},
		"final rival":        {map[string]string{"templates/web.json": `{"final":true,"ipam":{"type":"ipam-ln","subnet":"auto/24"}}`}, keys{"ipam.ranges": []any{[]any{map[string]any{"subnet": "10.9.0.0/24"}}}}, `ipam.subnet: "auto/24": want no key of the configuration that puts it out of force: the template is final (` + web[:len(web)-2] + ")"},
		"defaults not final": {map[string]string{"defaults.json": `{"final":true}`}, keys{"configFrom": nil}, defaults + "final: true: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.layers(tt.files)
			before := h.snapshot()
			c := attachment("bridge-ln", "c1", h.netns("c1"), edit(t, ofTemplate, tt.conf))
			for _, verb := range []string{"ADD", "STATUS"} {
				if r := h.run(c.as(verb)); r.code != codeConfig || !strings.HasPrefix(r.msg, tt.says) {
					t.Errorf("%s: code %d, %q\nwant %q", verb, r.code, r.msg, tt.says)
				}
			}
			for _, verb := range []string{"DEL", "GC"} {
				if r := h.run(c.as(verb)); r.code != 0 {
					t.Errorf("%s: code %d, %q", verb, r.code, r.msg)
				}
			}
			h.same(before)
		})
	}
}

// The tools of an operator know the files: whence each value is, and what is wrong.
func TestTemplateTools(t *testing.T) {
	h := newHost(t)
	h.layers(map[string]string{"defaults.json": `{"mtu":1300,"ipam":{"cooldown":600}}`, "templates/web.json": webTemplate})
	confs := t.TempDir()
	file := filepath.Join(confs, "10-net.conf")
	h.check(os.WriteFile(file, []byte(ofTemplate), 0o600))
	run := func(args ...string) (string, error) {
		out, err := exec.Command(program(t, "lnctl"), args...).CombinedOutput()
		return string(out), err
	}
	out, err := run("explain", "-o", "json", file)
	if err != nil {
		t.Fatalf("explain: %v: %s", err, out)
	}
	var explained []struct {
		Keys []struct{ Key, Value, From string }
	}
	h.check(json.Unmarshal([]byte(out), &explained))
	from := map[string]string{}
	for _, k := range explained[0].Keys {
		from[k.Key] = k.Value + " " + k.From
	}
	for key, want := range map[string]string{
		"mtu": "1400 template web", "ipam.cooldown": "600 defaults", "configFrom": `"web" conf`, "icc": "true default", "ipam.subnet": `"10.61.0.0/24" template web`,
	} {
		if from[key] != want {
			t.Errorf("explain: %s is %q, want %q", key, from[key], want)
		}
	}
	if out, err := run("lint", "/etc/cni/ln/templates/web.json", "/etc/cni/ln/defaults.json", file); err != nil {
		t.Errorf("lint: %v: %s", err, out)
	}
	if out, _ := run("doctor", "--conf-dir", confs, "-o", "json"); strings.Contains(out, "/etc/cni/ln") || strings.Contains(out, "configFrom") {
		t.Errorf("doctor of what is well: %s", out)
	}

	h.layers(map[string]string{"defaults.json": `{"mtuu":1300}`, "templates/other.json": `{"mtu":"big","vlan":"x"}`})
	for _, args := range [][]string{{"lint", "/etc/cni/ln/defaults.json", "/etc/cni/ln/templates/other.json"}, {"doctor", "--conf-dir", confs}} {
		out, err := run(args...)
		for _, want := range []string{"defaults.json: mtuu: 1300: want mtu", `other.json: vlan: "x"`} {
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%s: %v: no %q in\n%s", args[0], err, want, out)
			}
		}
	}
	h.layers(map[string]string{"defaults.json": `{}`, "templates/web.json": ""})
	for _, args := range [][]string{{"lint", file}, {"doctor", "--conf-dir", confs}, {"explain", file}} {
		if out, err := run(args...); err == nil || !strings.Contains(out, "there is no /etc/cni/ln/templates/web.json") {
			t.Errorf("%s: %v: %s", args[0], err, out)
		}
	}
}
