package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// A key that keygen makes is for root alone, whatever the umask, at every moment; it is used
// as it is, its public half is printed, and it is not replaced.
func TestOverlayKeygen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	public := strings.TrimSpace(overlayKey(t, 0, "keygen", path))
	if k, err := wireguard.ParseKey(public); err != nil || k.IsZero() {
		t.Errorf("printed %q: %v", public, err)
	}
	if got := strings.TrimSpace(overlayKey(t, 0, "pubkey", path)); got != public {
		t.Errorf("pubkey is %q, want %q", got, public)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if said := overlayKey(t, 1, "keygen", path); !strings.Contains(said, path+" is there already: a key is not replaced") {
		t.Errorf("again: %q", said)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key was replaced: %v", err)
	}
	overlayKey(t, 2, "keygen")
	overlayKey(t, 1, "keygen", filepath.Join(path, "below"))
	overlayKey(t, 1, "pubkey", filepath.Join(filepath.Dir(path), "none"))
}

// overlayKey runs a command of lnctl overlay and returns what it printed.
func overlayKey(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(append([]string{"overlay"}, args...), strings.NewReader(""), &out, &errs); code != wantCode {
		t.Errorf("%v: exit code %d, want %d: %s", args, code, wantCode, &errs)
	}
	return out.String() + errs.String()
}

// The file has its mode from its first moment on, also under umask 0: no other user can open it
// between two of keygen's system calls.
func TestOverlayKeygenModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Join(dir, "lnctl")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(dir, "key")
	stop, seen := make(chan struct{}), make(chan os.FileMode, 1)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
				seen <- info.Mode()
				return
			}
		}
	}()
	for range 20 {
		if out, err := exec.Command("sh", "-c", "umask 0; exec "+bin+" overlay keygen "+path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	select {
	case mode := <-seen:
		t.Errorf("it had mode %s for a moment", mode)
	default:
	}
}
