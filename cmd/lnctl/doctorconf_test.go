package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The doctor names keys without effect in the configurations of a directory, of each
// plugin of ours, and what is no configuration.
func TestDoctorReadsConfigurations(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := t.TempDir()
	write := func(name, text string) { l.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	write("10-good.conflist", `{"cniVersion":"1.1.0","name":"good","plugins":[{"type":"bridge-ln","bridge":"br1","ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]]}},{"type":"portmap-ln","snat":true}]}`)
	write("20-other.conflist", `{"name":"other","plugins":[{"type":"bridge","ipMask":true}]}`)
	out := l.lnctl(exitOK, "doctor", "--conf-dir", dir)
	if want := "✓ configurations    2 of plugins of ours in " + dir; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}
	write("30-bad.conflist", `{"name":"bad","plugins":[{"type":"bridge-ln","gatewaymod":"nat","vni":7},{"type":"portmap-ln","backendd":"x"}]}`)
	write("40-ipam.conf", `{"name":"ipam","type":"macvlan","ipam":{"type":"ipam-ln","rangez":[]}}`)
	write("50-broken.json", `{`)
	out = l.lnctl(exitProblem, "doctor", "--conf-dir", dir)
	for _, want := range []string{
		`30-bad.conflist, network "bad", bridge-ln: plugins[0].gatewaymod is no key of bridge-ln, but plugins[0].gatewayMode is; plugins[0].vni is no key of bridge-ln`,
		`30-bad.conflist, network "bad", portmap-ln: plugins[1].backendd is no key of portmap-ln, but plugins[1].backend is`,
		`40-ipam.conf, network "ipam", ipam-ln: ipam.rangez is no key of ipam-ln, but ipam.ranges is`,
		"50-broken.json: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "ipMask") {
		t.Errorf("the key of a plugin that is not ours is named:\n%s", out)
	}
}
