package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The page in the tree is the one that the table gives; another one is noticed.
func TestPage(t *testing.T) {
	const file = "../../docs/configuration.md"
	if err := generate(file, true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "configuration.md")
	if err := os.WriteFile(stale, bytes.Replace(text, []byte("`mtu`"), []byte("`mtx`"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if code := run([]string{"-check", "-file", stale}, &stderr); code != 1 || !strings.Contains(stderr.String(), "make keys") {
		t.Errorf("a stale page: status %d, %s", code, &stderr)
	}
	if code := run([]string{"-file", stale}, &stderr); code != 0 {
		t.Errorf("status %d, %s", code, &stderr)
	}
	if again, err := os.ReadFile(stale); err != nil || !bytes.Equal(again, text) {
		t.Errorf("written anew, it is another one: %v", err)
	}
}
