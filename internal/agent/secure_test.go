package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// A peer is sent to by its new key once a handshake with that is complete, by the old one before,
// and never back. What a registry has lost is known from before.
func TestChoose(t *testing.T) {
	t.Parallel()
	key := func(epoch int, b byte) overlay.EpochKey {
		return overlay.EpochKey{Epoch: epoch, PublicKey: wireguard.Key{b}, Port: uint16(1000 + epoch)}
	}
	one, two, again := key(1, 1), key(2, 2), key(2, 3)
	told := func(all ...overlay.EpochKey) overlay.HostKeys { return overlay.HostKeys{Keys: all} }
	known := func(by int, all ...overlay.EpochKey) nodefile.Node { return nodefile.Node{Keys: all, By: by} }
	met := map[wireguard.Key]bool{two.PublicKey: true}
	for name, tt := range map[string]struct {
		epochs []int
		told   overlay.HostKeys
		known  nodefile.Node
		met    map[wireguard.Key]bool
		by     int
		keys   []overlay.EpochKey
	}{
		"first":                       {[]int{1}, told(one), known(0), nil, 1, []overlay.EpochKey{one}},
		"none yet":                    {[]int{1}, told(), known(0), nil, 0, nil},
		"new key, no handshake":       {[]int{2, 1}, told(one, two), known(1, one), nil, 1, []overlay.EpochKey{one, two}},
		"handshake":                   {[]int{2, 1}, told(one, two), known(1, one, two), met, 2, []overlay.EpochKey{one, two}},
		"moved, the device is new":    {[]int{2, 1}, told(one, two), known(2, one, two), nil, 2, []overlay.EpochKey{one, two}},
		"moved, but it has a new key": {[]int{2, 1}, told(one, again), known(2, one, two), met, 1, []overlay.EpochKey{one, again}},
		"has no older one":            {[]int{2, 1}, told(two), known(0), nil, 2, []overlay.EpochKey{two}},
		"has no newer one":            {[]int{2, 1}, told(one), known(1, one), nil, 1, []overlay.EpochKey{one}},
		"older device is gone":        {[]int{2}, told(one, two), known(1, one, two), nil, 2, []overlay.EpochKey{two}},
		"registry is an older copy":   {[]int{2}, told(one), known(2, two), nil, 2, []overlay.EpochKey{two}},
		"rebooted, another key":       {[]int{2}, told(again), known(2, two), nil, 2, []overlay.EpochKey{again}},
	} {
		keys, by := choose(tt.epochs, tt.told, tt.known, tt.met)
		if by != tt.by || !slices.Equal(keys, tt.keys) {
			t.Errorf("%s: %v by %d, want %v by %d", name, keys, by, tt.keys, tt.by)
		}
	}
}

// Keys are made once for each epoch, for root alone, and only those that are wanted stay. Networks
// whose names begin alike are told apart. One that is damaged is made anew.
func TestKeyStore(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "libnet-keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, other := keyStore{dir, "a"}, keyStore{dir, "a.1"}
	made := map[int]wireguard.Key{}
	for _, epoch := range []int{1, 2, 10} {
		if made[epoch], err = s.ensure(epoch); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.ensure(7); err != nil {
		t.Fatal(err)
	}
	for epoch, want := range made {
		if got, err := s.ensure(epoch); err != nil || got != want {
			t.Errorf("epoch %d: %s, %v, want %s", epoch, got, err, want)
		}
		if info, err := os.Stat(wireguard.KeyPath(dir, "a", epoch)); err != nil || info.Mode() != 0o600 {
			t.Errorf("epoch %d: %v, %v", epoch, info, err)
		}
	}
	if all, err := s.epochs(); err != nil || !slices.Equal(all, []int{10, 2, 1}) {
		t.Errorf("epochs are %v, %v", all, err)
	}
	if err := os.WriteFile(wireguard.KeyPath(dir, "a", 2), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := s.ensure(2); err != nil || again == made[2] {
		t.Errorf("a damaged key: %s, %v", again, err)
	}
	if err := s.keep(2); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "wireguard", "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A peer is made anew soon at first, then ever more rarely, but never less than every half minute.
func TestPatient(t *testing.T) {
	t.Parallel()
	before := time.Duration(0)
	for tries := range 40 {
		w := patient{tries: tries}.wait()
		if w < before || w < firstRenewal || w > lastRenewal {
			t.Errorf("try %d waits %s, the one before %s", tries, w, before)
		}
		before = w
	}
}
