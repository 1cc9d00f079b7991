package arch

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestVersionWithoutGit asks a source archive for its version: it has no .git, and may be
// unpacked below a repository of another project.
func TestVersionWithoutGit(t *testing.T) {
	want := strings.TrimSpace(read(t, "../../VERSION"))
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`).MatchString(want) {
		t.Fatalf("VERSION: %q, want vX.Y.Z", want)
	}
	around := t.TempDir()
	git(t, around, "init", "-q")
	git(t, around, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "other")
	git(t, around, "tag", "v9.9.9")
	dir := filepath.Join(around, "libnet")
	for name, mode := range map[string]os.FileMode{"VERSION": 0o644, "scripts/version": 0o755} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, "../../"+name)), mode); err != nil {
			t.Fatal(err)
		}
	}
	if got := versionOf(t, dir); got != want {
		t.Errorf("without .git: %q, want %q", got, want)
	}
	git(t, dir, "init", "-q")
	git(t, dir, "add", ".")
	git(t, dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first")
	if got := versionOf(t, dir); !strings.HasPrefix(got, want+"-g") || strings.HasSuffix(got, "-dirty") {
		t.Errorf("without a tag: %q, want %s-g and the commit", got, want)
	}
	git(t, dir, "tag", "v0.0.7")
	if got := versionOf(t, dir); got != "v0.0.7" {
		t.Errorf("at a tag: %q, want the tag", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte("v0.0.8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := versionOf(t, dir); got != "v0.0.7-dirty" {
		t.Errorf("after a change: %q, want v0.0.7-dirty", got)
	}
}

// TestVersionInChangelog holds the file and the newest section of the changelog together.
func TestVersionInChangelog(t *testing.T) {
	version := strings.TrimSpace(read(t, "../../VERSION"))
	newest := regexp.MustCompile(`(?m)^## .*$`).FindString(read(t, "../../CHANGELOG.md"))
	if !strings.Contains(newest, version) {
		t.Errorf("the newest section of CHANGELOG.md is %q, and VERSION says %s", newest, version)
	}
}

func versionOf(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, "scripts/version")).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
