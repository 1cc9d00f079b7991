package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// result is what the plugin before made; vendor is nothing that CNI knows of.
const result = `{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"pa"},{"name":"eth0","sandbox":"/run/netns/a"}],` +
	`"ips":[{"interface":2,"address":"10.99.0.2/24"}],"vendor":{"x":1.50}}`

const prev = `,"prevResult":` + result

// publishing is the keys of a call with these mappings.
func publishing(mappings string) string {
	return prev + `,"runtimeConfig":{"portMappings":[` + mappings + `]}`
}

const web = `{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP"}`

func TestLife(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.serve()
	before := h.ruleset()
	h.must("STATUS", "", "", "")
	for range 2 { // a runtime may repeat ADD
		if got := h.must("ADD", "c1", h.a, publishing(web)); got != result {
			t.Errorf("ADD answers\n%s\nwant what came:\n%s", got, result)
		}
	}
	if !h.reaches("8080", true) {
		t.Error("the world does not reach port 8080")
	}
	h.must("CHECK", "c1", h.a, publishing(web))
	if h.must("DEL", "c1", "", ""); h.reaches("8080", false) { // without netns, prevResult and ports
		t.Error("after DEL, the world reaches port 8080")
	}
	for _, keys := range []string{"", `,"runtimeConfig":{"portMappings":[{"hostPort":"x"}]},"backend":7`} {
		h.must("DEL", "c1", h.a, keys)
		h.must("DEL", "c2", "/run/netns/gone", keys)
	}
	if after := h.ruleset(); after != before {
		t.Errorf("rules are left:\n%s", after)
	}
}

// Without ports nothing is done, and nothing of the result is lost.
func TestNoPorts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.ruleset()
	for _, keys := range []string{"", `,"runtimeConfig":{}`, `,"runtimeConfig":{"portMappings":[]}`} {
		if got := h.must("ADD", "c1", h.a, prev+keys); got != result {
			t.Errorf("%s: ADD answers\n%s\nwant\n%s", keys, got, result)
		}
		h.must("CHECK", "c1", h.a, prev+keys)
	}
	if after := h.ruleset(); after != before {
		t.Errorf("there are rules:\n%s", after)
	}
	h.must("DEL", "c1", h.a, "")
}

// A port that was chosen is told, the same one each time, and leads to the
// container.
func TestFreePort(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.serve()
	chosen := func() int {
		var r struct {
			PortMappings []struct{ HostPort, ContainerPort int }
			Vendor       json.RawMessage
		}
		h.check(json.Unmarshal([]byte(h.must("ADD", "c1", h.a, publishing(`{"containerPort":80}`))), &r))
		if len(r.PortMappings) != 1 || r.PortMappings[0].ContainerPort != 80 || string(r.Vendor) != `{"x":1.50}` {
			t.Fatalf("ADD answers %+v", r)
		}
		return r.PortMappings[0].HostPort
	}
	port := chosen()
	if !h.reaches(strconv.Itoa(port), true) {
		t.Errorf("the world does not reach port %d, which was chosen", port)
	}
	if again := chosen(); again != port {
		t.Errorf("port %d, and then %d", port, again)
	}
	h.must("CHECK", "c1", h.a, publishing(`{"containerPort":80}`))
	h.must("DEL", "c1", h.a, "")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must("ADD", "c1", h.a, publishing(web))
	for _, tt := range []struct {
		name, command, keys string
		code                uint
		says                string
	}{
		{"no prevResult", "ADD", `,"runtimeConfig":{"portMappings":[` + web + `]}`, 7, "prevResult: missing"},
		{"no prevResult, no ports", "ADD", "", 7, "prevResult: missing"},
		{"CHECK without prevResult", "CHECK", "", 7, "prevResult: missing"},
		{"no address", "ADD", `,"prevResult":{},"runtimeConfig":{"portMappings":[` + web + `]}`, 7, "prevResult.ips: none of eth0"},
		{"port too high", "ADD", publishing(web + `,{"hostPort":70000,"containerPort":80}`), 7, "runtimeConfig.portMappings[1].hostPort: 70000: want"},
		{"no container port", "ADD", publishing(`{"hostPort":80}`), 7, "runtimeConfig.portMappings[0].containerPort: 0: want 1 to 65535"},
		{"range backwards", "ADD", publishing(`{"hostPort":80,"hostPortEnd":79}`), 7, "runtimeConfig.portMappings[0].hostPortEnd: 79"},
		{"range too long", "ADD", publishing(`{"hostPort":1,"hostPortEnd":10,"containerPort":65530}`), 7, "runtimeConfig.portMappings[0].containerPort: 65530"},
		{"range of free ports", "ADD", publishing(`{"hostPortEnd":10,"containerPort":1}`), 7, "runtimeConfig.portMappings[0].hostPortEnd: 10"},
		{"protocol", "ADD", publishing(`{"hostPort":1,"containerPort":1,"protocol":"icmp"}`), 7, `runtimeConfig.portMappings[0].protocol: "icmp"`},
		{"to two ports", "ADD", publishing(`{"hostPort":1,"hostPortEnd":9},{"hostPort":9,"hostPortEnd":10,"containerPort":7}`), 7, "runtimeConfig.portMappings[1]: "},
		{"held by another", "ADD", publishing(web), 101, "host port tcp 0.0.0.0:8080 is published by "},
		{"held, of one address", "ADD", publishing(`{"hostPort":8080,"containerPort":80,"hostIP":"192.0.2.1"}`), 101, "net1/c1/eth0"},
		{"CHECK of what is not there", "CHECK", publishing(`{"hostPort":1,"containerPort":1}`), 103, "c2"},
	} {
		before := h.ruleset()
		got := h.run(tt.command, "c2", h.a, tt.keys)
		if got.Code != tt.code || !strings.Contains(got.Msg, tt.says) {
			t.Errorf("%s: code %d, %q; want %d, %q", tt.name, got.Code, got.Msg, tt.code, tt.says)
		}
		if after := h.ruleset(); after != before {
			t.Errorf("%s: rules were changed from\n%s\nto\n%s", tt.name, before, after)
		}
	}
	h.must("DEL", "c1", h.a, "")
}

// Each version of the specification has its own form of a result.
func TestVersions(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for version, prev := range map[string]string{
		"0.2.0": `{"cniVersion":"0.2.0","ip4":{"ip":"10.99.0.2/24"},"dns":{}}`,
		"0.4.0": `{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/a"}],"ips":[{"version":"4","interface":0,"address":"10.99.0.2/24"}]}`,
		"1.0.0": `{"cniVersion":"1.0.0","ips":[{"address":"10.99.0.2/24"}]}`,
	} {
		a := h.runAs(version, "ADD", "c1", h.a, `,"prevResult":`+prev+`,"runtimeConfig":{"portMappings":[`+web+`]}`)
		if a.Code != 0 || a.out != prev {
			t.Errorf("%s: code %d %s, answers\n%s\nwant\n%s", version, a.Code, a.Msg, a.out, prev)
		}
		if !strings.Contains(h.ruleset(), "10.99.0.2") {
			t.Errorf("%s: no rule names the container:\n%s", version, h.ruleset())
		}
		if a := h.runAs(version, "DEL", "c1", "", ""); a.Code != 0 {
			t.Errorf("%s: DEL: %s", version, a.Msg)
		}
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.ruleset()
	second := strings.ReplaceAll(publishing(`{"hostPort":8081,"containerPort":80}`), "10.99.0.2", "10.99.0.3")
	h.must("ADD", "c1", h.a, publishing(web))
	h.must("ADD", "c2", h.a, second)
	h.must("GC", "", "", "") // without a list, all that live stay
	h.must("CHECK", "c1", h.a, publishing(web))
	h.must("CHECK", "c2", h.a, second)
	h.must("GC", "", "", `,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]`)
	h.must("CHECK", "c2", h.a, second)
	if got := h.run("CHECK", "c1", h.a, publishing(web)); got.Code != 103 {
		t.Errorf("CHECK of what GC took: code %d: %s", got.Code, got.Msg)
	}
	h.must("GC", "", "", `,"cni.dev/valid-attachments":[]`)
	if after := h.ruleset(); after != before {
		t.Errorf("rules are left:\n%s", after)
	}
}
