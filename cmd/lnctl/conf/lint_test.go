package conf

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/console"
)

// run calls a command and returns what it printed, and its error.
func runLint(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := LintCommand(&console.Output{})
	var out strings.Builder
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.Execute()
	return out.String(), err
}

// Each fault of a configuration is found, and said in one line with its mark.
func TestLint(t *testing.T) {
	t.Parallel()
	list := func(plugin string) string {
		return `{"cniVersion":"1.0.0","name":"web","plugins":[` + plugin + `]}`
	}
	bridge := func(keys, ipam string) string {
		return list(`{"type":"bridge-ln",` + keys + `"ipam":{"type":"ipam-ln",` + ipam + `}}`)
	}
	const ranges = `"ranges":[[{"subnet":"10.32.0.0/24"}]]`
	for _, tt := range []struct {
		name, conf, want string
		ok               bool
	}{
		{"well", bridge("", ranges), "✓ standard input", true},
		{"keys of runtimes", `{"args":{"podman_labels":{"a":"b"}},"nerdctlID":"x",` + bridge("", ranges)[1:], "✓ standard input", true},
		{"misspelt", bridge(`"gatewaymod":"nat",`, ranges), "! standard input: plugins[0].gatewaymod is no key of bridge-ln, but plugins[0].gatewayMode is", false},
		{"reference's", bridge(`"ipMask":true,`, ranges), "but plugins[0].ipMasq is", false},
		{"inside a range", bridge("", `"ranges":[[{"subnet":"10.32.0.0/24","rangEnd":"10.32.0.9"}]]`), "rangEnd is no key", false},
		{"capability", bridge(`"capabilities":{"portMapping":true},`, ranges), "capabilities.portMappings is", false},
		{"of another plugin", bridge(`"vni":7,`, ranges), "plugins[0].vni is no key of bridge-ln: it is one of overlay-ln", false},
		{"twice", bridge(`"mtu":1400,"MTU":1500,`, ranges), "is there twice", false},
		{"of the list", `{"nam":"x",` + bridge("", ranges)[1:], "! standard input: nam is no key of a list of plugins, but name is", false},
		{"beside the list", `{"gatewayMode":"nat",` + bridge("", ranges)[1:], "gatewayMode stands beside plugins, where no plugin reads it", false},
		{"unknown", bridge(`"acme":1,`, ranges), "· standard input: plugins[0].acme is no key of bridge-ln; it is passed over", true},
		{"value", bridge(`"gatewayMode":"natt",`, ranges), `✗ standard input: plugins[0].gatewayMode: "natt": want "`, false},
		{"contradiction", bridge(`"internal":true,"ipMasq":true,`, ranges), "✗ standard input: internal", false},
		{"host bits", bridge("", `"ranges":[[{"subnet":"10.32.0.5/24"}]]`), "✗ standard input: ipam.ranges[0][0].subnet: \"10.32.0.5/24\": has host bits set", false},
		{"gateway outside", bridge(`"isGateway":true,`, `"ranges":[[{"subnet":"10.32.0.0/24","gateway":"10.33.0.1"}]]`), "10.33.0.1", false},
		{"small packets", bridge(`"mtu":1200,`, `"ranges":[[{"subnet":"fd32::/64"}]]`), "mtu: 1200: want at least 1280", false},
		{"auto", bridge("", `"subnet":"auto/33"`), "✗", false},
		{"ports", list(`{"type":"portmap-ln","markMasqBit":99}`), "✗ standard input: markMasqBit: 99: want a bit of the mark", false},
		{"name", `{"cniVersion":"1.0.0","plugins":[{"type":"bridge-ln"}]}`, `name: "": want letters`, false},
		{"syntax", "{\"a\": 1,\n \"b\" 2}", "✗ standard input: not valid JSON", false},
		{"not ours", list(`{"type":"bridge"}`), "· standard input: no plugin of libnet is in it", true},
		{"two faults", list(`{"type":"bridge-ln","mtu":"x"},{"type":"portmap-ln","backend":"x"}`), "plugins[1].backend", false},
	} {
		out, err := runLint(t, tt.conf, "-")
		if (err == nil) != tt.ok || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, %s, want %s", tt.name, err, out, tt.want)
		}
	}
}

// A file's error of syntax has its line, and of a directory all configurations are read.
func TestLintFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "10-x.conflist")
	if err := os.WriteFile(file, []byte("{\"name\": \"x\",\n  \"plugins\" [}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, dir} {
		if out, err := runLint(t, "", path); err == nil || !strings.Contains(out, "✗ "+file+": line 2, column 13: not valid JSON") {
			t.Errorf("%s: %v, %s", path, err, out)
		}
	}
	if out, err := runLint(t, "", "../../../conf/examples"); err != nil || strings.Count(out, "✓") != strings.Count(out, "\n") {
		t.Errorf("the examples: %v, %s", err, out)
	}
	if _, err := runLint(t, "", filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := runLint(t, ""); err == nil {
		t.Error("no argument is no error")
	}
}

// Programs read the same.
func TestLintJSON(t *testing.T) {
	t.Parallel()
	cmd := LintCommand(&console.Output{Format: console.JSON})
	var out strings.Builder
	cmd.SetArgs([]string{"-"})
	cmd.SetIn(strings.NewReader(`{"cniVersion":"1.0.0","name":"web","type":"bridge-ln","internl":true}`))
	cmd.SetOut(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.Execute(); err == nil || err.Error() != "0 errors and 1 warnings" {
		t.Errorf("error %v", err)
	}
	var got []finding
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || len(got) != 1 || got[0].Severity != warn || got[0].Advice != "write internal" {
		t.Errorf("%v: %s", err, &out)
	}
}
