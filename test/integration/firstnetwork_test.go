package integration

import (
	"os"
	"strings"
	"testing"
)

// docs/first-network.md has what its commands print, but for where lines break.
func TestFirstNetworkPage(t *testing.T) {
	t.Parallel()
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	page, err := os.ReadFile("../../docs/first-network.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/first-network.txtar")
	if err != nil {
		t.Fatal(err)
	}
	outputs := 0
	for section := range strings.SplitSeq(string(script), "\n-- ") {
		name, text, _ := strings.Cut(section, " --\n")
		if !strings.HasSuffix(name, ".out") {
			continue
		}
		outputs++
		if !strings.Contains(words(string(page)), words(text)) {
			t.Errorf("the page has not what %s has:\n%s", name, text)
		}
	}
	if outputs < 5 {
		t.Errorf("%d outputs, want 5", outputs)
	}
}
