package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The same programs make the same image, wherever and whenever they were built.
func TestImage(t *testing.T) {
	programs := []string{"bridge-ln", "ipam-ln", "ln-agent", "lnctl", "overlay-ln", "portmap-ln"}
	var digests, bills []string
	for i := range 2 {
		dir := t.TempDir()
		from := filepath.Join(dir, "programs")
		for _, arch := range []string{"amd64", "arm64"} {
			check(t, os.MkdirAll(filepath.Join(from, arch), 0o755))
			for _, name := range programs {
				path := filepath.Join(from, arch, name)
				data, err := os.ReadFile(bin(t, name)) // of this machine, under either name
				check(t, err)
				check(t, os.WriteFile(path, data, 0o600+os.FileMode(i*0o111)))
				check(t, os.Chtimes(path, time.Now(), time.Unix(int64(1000*i), 0)))
			}
		}
		digests = append(digests, run(t, "go", "run", "-C", "../../scripts/image", ".", "-from", from, "-to", filepath.Join(dir, "oci"), "-version", "v1"))
		bill, err := os.ReadFile(filepath.Join(dir, "oci-sbom-arm64.json"))
		check(t, err)
		bills = append(bills, string(bill))
	}
	if digests[0] != digests[1] || !strings.HasPrefix(digests[0], "ghcr.io/libnet-cni/libnet:v1 sha256:") {
		t.Errorf("got %s and %s", digests[0], digests[1])
	}
	if bills[0] != bills[1] || !strings.Contains(bills[0], "pkg:golang/k8s.io/client-go@") || !strings.Contains(bills[0], `"name": "bridge-ln"`) {
		t.Errorf("the list of modules differs, or lacks some: %.500s", bills[0])
	}
}
