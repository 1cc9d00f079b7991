package state

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// followed is what a Follower has told so far: MAC by attachment.
type followed map[string]string

func (s followed) take(t *testing.T, f *Follower) {
	t.Helper()
	err := f.Changes(func(c Change) {
		key := c.Network + "/" + c.ContainerID + "/" + c.IfName
		if c.Record == nil {
			delete(s, key)
		} else {
			s[key] = c.Record.MAC
		}
	}, none)
	if err != nil {
		t.Error(err)
	}
}

func follow(t *testing.T, d *Dir) *Follower {
	t.Helper()
	f, err := d.Follow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (s followed) want(t *testing.T, when string, want followed) {
	t.Helper()
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// A change is known as soon as the call that makes it has returned.
func TestFollow(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	before := Endpoint{Network: "n", ContainerID: "c0", IfName: "eth0", MAC: "a"}
	must(t, d.SaveEndpoint(before))
	f, seen := follow(t, d), followed{}
	seen.take(t, f)
	seen.want(t, "at the beginning", followed{"n/c0/eth0": "a"})

	must(t, d.CreateEndpoint(Endpoint{Network: "n", ContainerID: "c1", IfName: "eth0", MAC: "b"}))
	seen.take(t, f)
	seen.want(t, "made", followed{"n/c0/eth0": "a", "n/c1/eth0": "b"})
	must(t, d.SaveEndpoint(Endpoint{Network: "n", ContainerID: "c1", IfName: "eth0", MAC: "c"}))
	must(t, d.SaveEndpoint(Endpoint{Network: "m", ContainerID: "c1", IfName: "eth1", MAC: "d"}))
	seen.take(t, f)
	seen.want(t, "changed, and in a new network", followed{"n/c0/eth0": "a", "n/c1/eth0": "c", "m/c1/eth1": "d"})
	must(t, d.DeleteEndpoint("n", "c0", "eth0"))
	seen.take(t, f)
	seen.want(t, "deleted", followed{"n/c1/eth0": "c", "m/c1/eth1": "d"})

	// The directories of a network go, and come again.
	must(t, d.DeleteEndpoint("m", "c1", "eth1"))
	must(t, os.RemoveAll(filepath.Join(d.root, "networks", "m")))
	must(t, d.SaveEndpoint(Endpoint{Network: "m", ContainerID: "c2", IfName: "eth1", MAC: "e"}))
	seen.take(t, f)
	seen.want(t, "another directory", followed{"n/c1/eth0": "c", "m/c2/eth1": "e"})
	must(t, os.RemoveAll(d.root))
	seen.take(t, f)
	seen.want(t, "all gone", followed{})
	must(t, d.SaveEndpoint(before))
	seen.take(t, f)
	seen.want(t, "begun anew", followed{"n/c0/eth0": "a"})
	if len(f.known) != 1 || len(f.watched) != 4 {
		t.Errorf("it keeps %v and watches %v", f.known, f.watched)
	}
}

// A change of the services' note is told once, as soon as the call that makes it has
// returned; and again if it could not be taken over.
func TestFollowServices(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "state"))
	f := follow(t, d)
	told, fail := 0, error(nil)
	look := func(when string, want int) {
		t.Helper()
		told = 0
		err := f.Changes(func(Change) {}, func() error { told++; return fail })
		if told != want || !errors.Is(err, fail) {
			t.Errorf("%s: told %d times, want %d: %v", when, told, want, err)
		}
	}
	look("at the beginning", 1)
	look("no change", 0)
	id := ServiceID{Network: "n", Select: "web", Name: "web"}
	for _, round := range []string{"first", "again"} {
		s, err := d.LockService(t.Context(), id, Create)
		must(t, err)
		must(t, s.Save(struct{}{}))
		must(t, d.NoteServices())
		look(round+" service", 1)
		look(round+": no change", 0)
		must(t, d.NoteServices())
		fail = os.ErrInvalid
		look(round+": changed, and fails", 1)
		fail = nil
		look(round+": once more", 1)
		look(round+": no change", 0)
		must(t, s.Remove())
		s.Unlock()
		must(t, d.NoteServices())
		look(round+": gone", 1)
		look(round+": no change", 0)
	}
	must(t, d.CreateEndpoint(Endpoint{Network: "n", ContainerID: "c1", IfName: "eth0"}))
	look("an attachment", 1) // which may tell the domain of its network
}

// A record that cannot be read is told, and is as if it were not there.
func TestFollowCorrupt(t *testing.T) {
	d := New(t.TempDir())
	must(t, d.SaveEndpoint(Endpoint{Network: "n", ContainerID: "c0", IfName: "eth0"}))
	f, seen := follow(t, d), followed{}
	seen.take(t, f)
	must(t, os.WriteFile(filepath.Join(d.endpointDir("n"), "new"), []byte("{"), 0o600))
	must(t, os.Rename(filepath.Join(d.endpointDir("n"), "new"), filepath.Join(d.endpointDir("n"), "c0:eth0.json")))
	gone := false
	err := f.Changes(func(c Change) { gone = c.Record == nil }, none)
	if !errors.Is(err, ErrCorrupt) || !gone {
		t.Errorf("got %v, gone %v", err, gone)
	}
}

// While many write and delete, none is missed: neither a record that is there when
// its writer has returned, nor one that is gone. Wait ends at each change.
func TestFollowMany(t *testing.T) {
	d := New(t.TempDir())
	f, seen := follow(t, d), followed{}
	var mu sync.Mutex
	has := func(key, mac string) bool {
		mu.Lock()
		defer mu.Unlock()
		seen.take(t, f)
		return seen[key] == mac
	}
	woken := make(chan error, 1)
	go func() { woken <- f.Wait() }()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 100 {
				e := Endpoint{Network: fmt.Sprint("n", i%3), ContainerID: fmt.Sprint("c", worker), IfName: "eth0", MAC: fmt.Sprint(i)}
				key := e.Network + "/" + e.ContainerID + "/eth0"
				if err := d.SaveEndpoint(e); err != nil || !has(key, e.MAC) {
					t.Errorf("%s written, and not there: %v", key, err)
				}
				if i%2 == 0 {
					if err := d.DeleteEndpoint(e.Network, e.ContainerID, "eth0"); err != nil || !has(key, "") {
						t.Errorf("%s deleted, and there: %v", key, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := <-woken; err != nil {
		t.Error(err)
	}
	// Lost events are made good for.
	must(t, d.DeleteEndpoint("n0", "c0", "eth0"))
	_, _ = f.drain()
	f.whole = true
	seen.take(t, f)
	if _, there := seen["n0/c0/eth0"]; there || len(seen) == 0 {
		t.Errorf("after events were lost: %v", slices.Sorted(maps.Keys(seen)))
	}
	go func() { woken <- f.Wait() }()
	_ = f.Close()
	if err := <-woken; err == nil {
		t.Error("Wait goes on after Close")
	}
}

// none is for what has no services.
func none() error { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A look at what changed costs a resolver this at each query.
func BenchmarkFollowNothing(b *testing.B) {
	d := New(b.TempDir())
	f, err := d.Follow()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for b.Loop() {
		if err := f.Changes(func(Change) {}, none); err != nil {
			b.Fatal(err)
		}
	}
}
