package cni

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// A delegate may write what it likes: no more of it is kept than a result can
// have, and one that writes without end is ended.
func TestDelegateOutputIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, script, want string }{
		{"endless", "exec yes", "result: more than 8388608 bytes"},
		{"large", "head -c 9000000 /dev/zero", "result: more than 8388608 bytes"},
		{"endless complaints", "yes | head -c 9000000 >&2; exit 1", "exit status 1"},
		{"complaints", `yes | head -c 9000000 >&2; echo '{"code": 7, "msg": "no"}'; exit 1`, "no"},
		{"fine", `yes | head -c 9000000 >&2; echo '{}'`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := lntest.WriteProgram(filepath.Join(dir, "ipam"), []byte("#!/bin/sh\n"+tt.script+"\n")); err != nil {
				t.Fatal(err)
			}
			d := NewDelegate(&Call{Path: []string{dir}}, "ipam")
			out, err := d.run(t.Context(), "ADD", model.ID{})
			switch {
			case tt.want == "" && (err != nil || strings.TrimSpace(string(out)) != "{}"):
				t.Errorf("got %q, %v", out, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 10_000):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
