package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const inTree = "../../internal/responder/program/respond.c"

// The instructions in the tree are those of the source, by the compiler that is named beside
// them; a change of either is noticed.
func TestProgram(t *testing.T) {
	p := program{source: inTree, clang: "clang-16"}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	for _, changed := range []string{"respond.c", "respond.bin"} {
		dir := t.TempDir()
		for _, name := range []string{"respond.c", "respond.bin", "respond.sum"} {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(inTree), name))
			if err != nil {
				t.Fatal(err)
			}
			if name == changed {
				data = append(data, '\n')
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var stderr bytes.Buffer
		if code := run([]string{"-check", "-source", filepath.Join(dir, "respond.c")}, &stderr); code != 1 || !strings.Contains(stderr.String(), "make bpf") {
			t.Errorf("%s changed: status %d, %s", changed, code, &stderr)
		}
	}
}
