package plain

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := strings.Repeat("x", 100_000)
	for _, name := range []string{"c", "a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+long), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFile(filepath.Join(dir, "b"))
	if err != nil || string(got) != "b"+long {
		t.Errorf("ReadFile: %d bytes, %v", len(got), err)
	}
	var names []string
	entries, err := ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); err != nil || diff != "" {
		t.Errorf("ReadDir: %v, %s", err, diff)
	}
	for _, missing := range []string{dir + "/none", dir + "/a/none"} {
		_, fileErr := ReadFile(missing)
		_, dirErr := ReadDir(missing)
		_, want := os.ReadFile(missing)
		if fileErr == nil || fileErr.Error() != want.Error() || dirErr == nil || dirErr.Error() != want.Error() {
			t.Errorf("%s: got %v and %v, want %v", missing, fileErr, dirErr, want)
		}
	}
	if _, err := ReadFile(dir); !errors.Is(err, unix.EISDIR) {
		t.Errorf("ReadFile of a directory: %v", err)
	}
	if _, err := ReadDir(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadDir of nothing: %v", err)
	}
	if err := StartPoller(); err != nil {
		t.Error(err)
	}
}
