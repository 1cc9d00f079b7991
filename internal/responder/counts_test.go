package responder

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/libnet-cni/libnet/internal/bpf"
)

// Queries are counted by what became of them, on all CPUs; what is no query is not.
func TestCounts(t *testing.T) {
	r, l := newResponder(t)
	want := Counts{}
	check := func() {
		t.Helper()
		if got, err := r.Counts(t.Context()); err != nil || got != want {
			t.Errorf("counts %+v, want %+v: %v", got, want, err)
		}
	}
	check()
	put(t, r, member("web", "c1", loopback, "10.9.0.2"), member("web", "db", 11, "10.9.0.3"))
	check()
	for _, q := range []struct {
		name  string
		qtype uint16
		is    *uint64
	}{
		{"db", dns.TypeA, &want.Answered}, {"db", dns.TypeAAAA, &want.NoData}, {"db", dns.TypeMX, &want.NoData},
		{"3.0.9.10.in-addr.arpa", dns.TypePTR, &want.Answered}, {"example.com", dns.TypeA, &want.Foreign},
		{"example.com", dns.TypePTR, &want.Foreign}, {"db.libnet.internal", dns.TypeA, &want.Answered},
	} {
		ask(t, l, query(q.name, q.qtype))
		*q.is++
		check()
	}
	run(t, l, packet(from4, to4, 5, []byte("no query"), whole))
	check()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				ask(t, l, query("db", dns.TypeA))
			}
		})
	}
	wg.Wait()
	want.Answered += 4 * 500
	check()
}

// A process that was killed before it had made the program leaves what it would count in.
func TestCountsAfterKill(t *testing.T) {
	r, l := newResponder(t)
	dir, err := r.dir()
	if err != nil {
		t.Fatal(err)
	}
	if err := bpf.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	left, err := bpf.NewMap(scratchSpec)
	if err != nil {
		t.Fatal(err)
	}
	if err := bpf.Pin(left.FD(), filepath.Join(dir, countsName())); err != nil {
		t.Fatal(err)
	}
	left.Close()
	put(t, r, member("web", "c1", loopback, "10.9.0.2"))
	ask(t, l, query("c1", dns.TypeA))
	if got, err := r.Counts(t.Context()); err != nil || got != (Counts{Answered: 1}) {
		t.Errorf("counts %+v: %v", got, err)
	}
}
