package state

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Guests are those of one container, and nothing is left of the last one.
func TestGuests(t *testing.T) {
	t.Parallel()
	d := New(filepath.Join(t.TempDir(), "state"))
	if all, err := d.Guests("c1"); all != nil || err != nil {
		t.Errorf("before: %v, %v", all, err)
	}
	for _, g := range []Guest{{"shop", "eth1"}, {"web", "eth2"}} {
		if err := d.AddGuest(g.Network, "c1", g.IfName); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.Guests("c1"); err != nil || !cmp.Equal(got, []Guest{{"shop", "eth1"}, {"web", "eth2"}}) {
		t.Errorf("guests %v, %v", got, err)
	}
	if !d.IsGuest("shop", "c1", "eth1") || d.IsGuest("shop", "c1", "eth2") || d.IsGuest("shop", "c2", "eth1") {
		t.Error("another one is a guest")
	}
	for _, e := range []Endpoint{{Network: "shop", ContainerID: "c1", IfName: "eth1"}, {Network: "web", ContainerID: "c11", IfName: "eth0"}} {
		if err := d.CreateEndpoint(e); err != nil {
			t.Fatal(err)
		}
	}
	if has, err := d.HasHost("c1"); has || err != nil {
		t.Errorf("with guests alone: %v, %v", has, err)
	}
	if err := d.CreateEndpoint(Endpoint{Network: "web", ContainerID: "c1", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if has, err := d.HasHost("c1"); !has || err != nil {
		t.Errorf("with one of its own: %v, %v", has, err)
	}
	for _, network := range []string{"shop", "shop", "web"} {
		for _, name := range []string{"eth1", "eth2"} {
			if err := d.RemoveGuest(network, "c1", name); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(d.Path(), "guests")); !os.IsNotExist(err) {
		t.Errorf("the directory stays: %v", err)
	}
	for _, bad := range []string{"", "..", "a/b", "a:b"} {
		if err := d.AddGuest("web", bad, "eth0"); err == nil {
			t.Errorf("container %q was taken", bad)
		}
	}
}

// Guests that come and go at once do not take each other's directory away.
func TestGuestsAtOnce(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			network := string(rune('a' + i))
			for range 500 {
				if err := d.AddGuest(network, "c1", "eth1"); err != nil || !d.IsGuest(network, "c1", "eth1") {
					t.Errorf("network %s: not there: %v", network, err)
					return
				}
				if err := d.RemoveGuest(network, "c1", "eth1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}
