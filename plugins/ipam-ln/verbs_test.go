package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/cni"
)

// runVerb runs a verb on a pool of three addresses in dir and returns what it
// prints and its exit code.
func runVerb(verb, id, netns, dir string) (string, int) {
	env := map[string]string{"CNI_COMMAND": verb, "CNI_CONTAINERID": id, "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","ipam":{"type":"ipam-ln","dataDir":%q,"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.4","strategy":"lowest"}}`, dir)
	var out bytes.Buffer
	code := program().Run(func(key string) string { return env[key] }, cni.Streams{Stdin: strings.NewReader(conf), Stdout: &out, Stderr: &out})
	return out.String(), code
}

// Callers of IPAM plugins pass any CNI_NETNS. A lease that names none is never
// taken over, as its container may live.
func TestNetnsThatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, netns := range []string{"/some/where", file, filepath.Join(file, "below")} {
		want := fmt.Sprintf(`"10.1.0.%d/24"`, i+2)
		for range 2 {
			if out, code := runVerb("ADD", fmt.Sprint("c", i), netns, dir); code != 0 || !strings.Contains(out, want) {
				t.Errorf("%s: code %d, %s, want %s", netns, code, out, want)
			}
		}
	}
	if out, code := runVerb("ADD", "c9", "/proc/thread-self/ns/net", dir); code == 0 || !strings.Contains(out, `"code": 100`) {
		t.Errorf("of a full pool: code %d, %s", code, out)
	}
	if out, code := runVerb("DEL", "c1", "/some/where", dir); code != 0 {
		t.Errorf("DEL: code %d, %s", code, out)
	}
	if out, code := runVerb("ADD", "c9", "/proc/thread-self/ns/net", dir); code != 0 || !strings.Contains(out, `"10.1.0.3/24"`) {
		t.Errorf("after a DEL: code %d, %s", code, out)
	}
}
