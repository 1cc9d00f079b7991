package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shapes are the forms a result has had, by the versions that share one. The
// files testdata/results/<shape>-<families>.json hold what is printed, with
// VERSION, MAC and VETH for what varies; UPDATE=1 writes them anew.
var shapes = []struct {
	name     string
	versions []string
}{
	{"0.1", []string{"0.1.0", "0.2.0"}},
	{"0.3", []string{"0.3.0", "0.3.1", "0.4.0"}},
	{"1.0", []string{"1.0.0"}},
	{"1.1", []string{"1.1.0"}},
}

var families = []struct {
	name string
	keys keys
}{
	{"ipv4", with(sets(`[{"subnet":"10.1.0.0/24"}]`), "ipam.routes", raw(`[{"dst":"10.9.0.0/16","gw":"10.1.0.1"}]`))},
	{"ipv6", sets(`[{"subnet":"fd01::/64"}]`)},
	{"dual-stack", with(sets(`[{"subnet":"10.1.0.0/24"}]`, `[{"subnet":"fd01::/64"}]`), "dns", raw(`{"nameservers":["10.1.0.1"],"search":["example.internal"]}`))},
}

func TestResultVersions(t *testing.T) {
	for _, shape := range shapes {
		for _, version := range shape.versions {
			for _, family := range families {
				t.Run(version+"/"+family.name, func(t *testing.T) {
					t.Parallel()
					conf := edit(t, edit(t, good, family.keys), keys{"cniVersion": version, "isDefaultGateway": true})
					testResult(t, conf, version, filepath.Join("testdata/results", shape.name+"-"+family.name+".json"))
				})
			}
		}
	}
}

// testResult takes a container through the verbs that the version has.
func testResult(t *testing.T, conf, version, golden string) {
	h := newHost(t)
	h.addressResult(conf, version)
	before := h.snapshot()
	c := attachment("bridge-ln", "c1", h.netns("c1"), conf)
	printed := h.must(c.as("ADD")).stdout
	compareGolden(t, golden, normalize(t, printed, version))
	if again := h.must(c.as("ADD")).stdout; again != printed {
		t.Errorf("a second ADD printed another result:\n%s", cmp.Diff(printed, again))
	}
	h.in(c.netns, func() { h.hasAddresses(parseResult(t, printed)) })
	if version >= "0.4.0" {
		c.stdin = edit(t, c.stdin, keys{"prevResult": raw(printed)})
		h.must(c.as("CHECK"))
	}
	h.must(c.as("DEL"))
	h.must(c.as("GC").with(edit(t, c.stdin, keys{"cniVersion": "1.1.0", "cni.dev/valid-attachments": []string{}})))
	h.same(before)
}

// addressResult holds what an IPAM plugin prints: no interfaces, and the
// addresses without one (spec 1.1.0, section 4, Delegated plugins).
func (h *host) addressResult(conf, version string) {
	h.t.Helper()
	c := attachment("ipam-ln", "i1", h.netns("i1"), conf)
	printed := h.must(c.as("ADD")).stdout
	r := parseResult(h.t, printed)
	if strings.Contains(printed, `"interface`) || len(r.addresses(h.t)) == 0 || !strings.Contains(pretty(h.t, printed), `"cniVersion": "`+version+`"`) {
		h.t.Errorf("ipam-ln with %s printed\n%s", version, printed)
	}
	h.must(c.as("DEL"))
}

var (
	anyMAC  = regexp.MustCompile(`[0-9a-f]{2}(:[0-9a-f]{2}){5}`)
	anyVeth = regexp.MustCompile(`"veth[0-9a-f]{11}"`)
)

// pretty is JSON with its keys sorted, a line each.
func pretty(t testing.TB, printed string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(printed), &v); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	out, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

// normalize replaces what varies.
func normalize(t *testing.T, printed, version string) string {
	t.Helper()
	printed = strings.ReplaceAll(pretty(t, printed), `"cniVersion": "`+version+`"`, `"cniVersion": "VERSION"`)
	return anyVeth.ReplaceAllString(anyMAC.ReplaceAllString(printed, "MAC"), `"VETH"`)
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (UPDATE=1 writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
