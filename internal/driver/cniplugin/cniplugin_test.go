package cniplugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// CHECK, GC and STATUS of a configuration that cannot be read are errors that say so, and
// the plugin is not run; DEL runs it, as it may still know what to remove.
func TestUnreadableConfiguration(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	plugin := "#!/bin/sh\necho $CNI_COMMAND >>" + ran + "\n"
	if err := lntest.WriteProgram(filepath.Join(dir, "fake"), []byte(plugin)); err != nil {
		t.Fatal(err)
	}
	d := Find([]string{dir}, "fake")
	if d == nil {
		t.Fatal("the plugin is not found")
	}
	ctx := t.Context()
	broken := json.RawMessage(`{"cniVersion":`)
	n := driver.Network{Name: "net1", Driver: "fake", Conf: broken}
	a := driver.Attachment{Network: n, ContainerID: "c1", IfName: "eth0", Conf: broken}
	for verb, err := range map[string]error{"CHECK": d.Verify(ctx, a), "GC": d.Collect(ctx, n, nil, nil), "STATUS": d.Status(ctx, n)} {
		if err == nil || !strings.Contains(err.Error(), "configuration of a plugin: ") {
			t.Errorf("%s: %v, want that the configuration cannot be read", verb, err)
		}
	}
	if said, err := os.ReadFile(ran); err == nil {
		t.Errorf("the plugin was run: %s", said)
	}
	if err := d.Detach(ctx, a); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if said, err := os.ReadFile(ran); err != nil || string(said) != "DEL\n" {
		t.Errorf("DEL ran it with %q, %v", said, err)
	}
}
