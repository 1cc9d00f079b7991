package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// All files of the tree are installed, examples in directories too, and all are taken away.
func TestInstall(t *testing.T) {
	t.Parallel()
	to, source := t.TempDir(), t.TempDir()
	for _, name := range []string{"bridge-ln", "lnctl"} {
		check(t, os.MkdirAll(filepath.Join(source, "bin"), 0o755))
		check(t, os.WriteFile(filepath.Join(source, "bin", name), []byte(name), 0o755))
	}
	for _, dir := range []string{"examples", "systemd"} {
		check(t, os.CopyFS(filepath.Join(source, dir), os.DirFS(filepath.Join("..", "conf", dir))))
	}
	install := func(args ...string) {
		t.Helper()
		cmd := exec.Command("./install", args...)
		cmd.Env = append(os.Environ(), "SOURCE="+source, "DESTDIR="+to, "prefix=/usr")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("install %q: %v\n%s", args, err, out)
		}
	}
	install()
	examples := 0
	check(t, filepath.WalkDir(filepath.Join(source, "examples"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		examples++
		rest, err := filepath.Rel(source, path)
		check(t, err)
		want, err := os.ReadFile(path)
		check(t, err)
		got, err := os.ReadFile(filepath.Join(to, "usr/share/doc/libnet", rest))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v, want what the source has", rest, err)
		}
		return nil
	}))
	if examples == 0 {
		t.Error("no examples")
	}
	for _, path := range []string{"opt/cni/bin/bridge-ln", "usr/sbin/lnctl"} {
		if info, err := os.Stat(filepath.Join(to, path)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	install("--remove")
	check(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (!d.IsDir() || filepath.Base(path) == "libnet") {
			t.Errorf("%s stays", path)
		}
		return err
	}))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
