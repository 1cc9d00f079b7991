package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsnotify/fsnotify"
)

func newFiles(t *testing.T) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{From: filepath.Join(dir, "from"), BinDir: filepath.Join(dir, "opt/cni/bin"), Conf: filepath.Join(dir, "from/10-pods.conflist"), ConfDir: filepath.Join(dir, "etc/cni/net.d")}
	for _, name := range Plugins {
		write(t, filepath.Join(f.From, name), "program "+name)
	}
	write(t, f.Conf, `{"name":"pods"}`)
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// names are the files of a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// The programs are there before the configuration that names them, which comes by a rename within
// its directory, the only way in which containerd hears of it.
func TestInstall(t *testing.T) {
	f := newFiles(t)
	for _, dir := range []string{f.ConfDir, f.BinDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	for _, dir := range []string{f.ConfDir, f.BinDir} {
		if err := w.Add(dir); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(f.BinDir, ".new-bridge-ln.tmp"), "half") // a killed install left it
	done, err := f.Install()
	if err != nil || len(done.Changed) != len(Plugins)+1 || len(done.Hiding) > 0 {
		t.Fatalf("%v: %+v", err, done)
	}
	whole := map[string]bool{}
	for e := range w.Events {
		if e.Has(fsnotify.Rename) {
			whole[filepath.Base(e.Name)] = true
		}
		if len(whole) == 1 && whole[".new-10-pods.conflist.tmp"] {
			t.Fatal("the configuration came before the programs")
		}
		if e.Has(fsnotify.Create) && e.Name == filepath.Join(f.ConfDir, "10-pods.conflist") {
			break
		}
	}
	for _, name := range Plugins {
		if !whole[".new-"+name+".tmp"] {
			t.Errorf("%s was not renamed before the configuration came", name)
		}
		info, err := os.Stat(filepath.Join(f.BinDir, name))
		if err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if got := names(t, f.ConfDir); !slices.Equal(got, []string{"10-pods.conflist"}) {
		t.Errorf("configurations %v", got)
	}
	if again, err := f.Install(); err != nil || len(again.Changed) > 0 {
		t.Errorf("a second time: %v: %v", err, again.Changed)
	}
	write(t, filepath.Join(f.From, "ipam-ln"), "a newer one")
	if again, err := f.Install(); err != nil || len(again.Changed) != 1 {
		t.Errorf("after an update of one program: %v: %v", err, again.Changed)
	}
}

// Of what cannot be used nothing is copied.
func TestInstallRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, says string }{
		{"10-pods.txt", "{}", "ends in .conflist"}, {"10-pods.conflist", "{", "want JSON"}, {"10-none.conflist", "", "no such file"},
	} {
		f := newFiles(t)
		f.Conf = filepath.Join(f.From, tt.name)
		if tt.text != "" {
			write(t, f.Conf, tt.text)
		}
		_, err := f.Install()
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		if _, err := os.Stat(f.BinDir); !os.IsNotExist(err) {
			t.Errorf("%s: something was installed", tt.name)
		}
	}
}

// A configuration that runtimes take instead of ours is named.
func TestInstallHidden(t *testing.T) {
	f := newFiles(t)
	write(t, filepath.Join(f.ConfDir, "05-other.conflist"), "{}")
	write(t, filepath.Join(f.ConfDir, "05-saved.conflist.old"), "{}")
	write(t, filepath.Join(f.ConfDir, "20-later.conf"), "{}")
	done, err := f.Install()
	if err != nil || !slices.Equal(done.Hiding, []string{filepath.Join(f.ConfDir, "05-other.conflist")}) {
		t.Errorf("%v: %v", err, done.Hiding)
	}
}

// Files of others stay, and nothing to remove is success.
func TestRemove(t *testing.T) {
	f := newFiles(t)
	if _, err := f.Install(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.BinDir, "loopback"), "x")
	write(t, filepath.Join(f.ConfDir, "20-other.conflist"), "{}")
	for range 2 {
		for _, step := range []func() (Done, error){f.RemoveConf, f.RemovePlugins} {
			if _, err := step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := append(names(t, f.BinDir), names(t, f.ConfDir)...); !slices.Equal(got, []string{"loopback", "20-other.conflist"}) {
		t.Errorf("left: %v", got)
	}
}
