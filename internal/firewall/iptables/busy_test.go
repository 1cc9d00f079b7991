package iptables

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/lntest"
)

// iptables that did not get its lock in time means that another program is at
// work, not that the kernel lacks it, and is asked once.
func TestBusy(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho >> " + dir + "/calls\necho Another app is currently holding the xtables lock >&2\nexit 4\n"
	for _, name := range []string{"iptables-save", "ip6tables-save"} {
		if err := lntest.WriteProgram(filepath.Join(dir, name), []byte(script)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	f := New(filepath.Join(dir, "lock"))
	_, e := plain(1)
	_, err := f.Apply(t.Context(), firewall.Network{}, e)
	if !errors.Is(err, flock.ErrLocked) || errors.Is(err, firewall.ErrUnsupported) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if calls, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || string(calls) != "\n" {
		t.Errorf("it was called %d times, %v", len(calls), err)
	}
}
