package etcd

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// An etcd that is an older copy of itself, and so has forgotten a block, gives it
// to no other host: those that know write it again before a new one may take
// any, also for a host whose agent is not there. When that comes back it has
// its block still.
func TestRestored(t *testing.T) {
	l := newLab(t, 17, 1)
	a, b := l.start(l.conf(1)), l.start(l.conf(2))
	for _, x := range []*agent{a, b} {
		x.awaitMember("h1")
		x.awaitMember("h2")
	}
	a.agree("net1", terms("10.5.0.0/24", 26)) // four blocks
	own := map[string]netip.Prefix{}
	claim := func(x *agent) {
		t.Helper()
		block := x.claimAgain()
		for node, other := range own {
			if other == block {
				t.Errorf("%s of %s is given to %s", block, node, x.name)
			}
		}
		own[x.name] = block
	}
	claim(a)
	has := func(x *agent, node string) {
		t.Helper()
		x.await("block of "+node, func(v overlay.View) bool { return v.Networks["net1"].Blocks[own[node]].Node == node })
	}
	has(a, "h1")
	l.members[0].Kill()
	old := l.members[0].Save()
	l.members[0].Start()
	l.members[0].Await()
	b.await("terms", func(v overlay.View) bool { return v.Networks["net1"].Agreed })
	claim(b)
	has(a, "h2")
	has(b, "h2")
	b.stop()
	l.members[0].Kill()
	l.members[0].Restore(old)
	patient := func(i int) Config {
		c := l.conf(i)
		c.Live = time.Minute // so that the others are back before
		return c
	}
	third, fourth := l.start(patient(3)), l.start(patient(4)) // they are there first
	l.members[0].Start()
	claim(third)
	claim(fourth)
	fourth.await("four blocks", func(v overlay.View) bool { return len(v.Networks["net1"].Blocks) == 4 })
	if b, err := fourth.choice(); !errors.Is(err, overlay.ErrFull) {
		t.Errorf("a fifth block: %s, %v", b, err)
	}
	has(third, "h2")
	v := a.await("generation", func(v overlay.View) bool {
		return v.At.Generation == 2 && v.Members["h2"].Holds && v.Networks["net1"].Blocks[own["h3"]].Node == "h3"
	})
	if e := v.Networks["net1"].Blocks[own["h3"]].Epoch; e.Generation != 2 {
		t.Errorf("the claim after the loss is of generation %d", e.Generation)
	}
	back := l.startKnowing(l.conf(2), overlay.View{Networks: b.view.Networks, Members: b.view.Members, At: b.view.At})
	has(back, "h2")
	a.awaitMember("h2")
}

// Two hosts that have a block each by their own account: the one that claimed it
// later has it. So a host whose claim etcd has forgotten, when none was there
// that knew, gets it back from one that took it meanwhile.
func TestLaterClaimWins(t *testing.T) {
	l := newLab(t, 18, 1)
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/24", 24)) // one block
	l.members[0].Kill()
	old := l.members[0].Save()
	l.members[0].Start()
	l.members[0].Await()
	for range 30 { // so that the claim is of a later revision
		_, err := l.client().Put(context.Background(), "elsewhere", "x")
		l.must(err)
	}
	block := a.claimAgain()
	a.await("block", func(v overlay.View) bool { return v.Networks["net1"].Blocks[block].Node == "h1" })
	a.stop()
	l.members[0].Kill()
	l.members[0].Restore(old)
	l.members[0].Start()
	l.members[0].Await()
	b := l.start(l.conf(2))
	b.awaitMember("h2")
	if taken := b.claimAgain(); taken != block {
		t.Fatalf("%s: no host is there that knows", taken)
	}
	l.startKnowing(l.conf(1), a.view)
	b.await("block of h1", func(v overlay.View) bool { return v.Networks["net1"].Blocks[block].Node == "h1" })
}

// A new host waits for the word of one that knows, where others have blocks; if
// none is there, no longer than a host may be silent.
func TestJoins(t *testing.T) {
	l := newLab(t, 19, 1)
	a := l.start(l.conf(1))
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/24", 26))
	_, err := a.claim()
	l.must(err)
	a.await("block", func(v overlay.View) bool { return len(v.Own("net1", "h1")) == 1 })
	second := l.conf(2)
	second.Live = time.Hour // longer than await waits: it is the word that settles it
	b := l.start(second)
	b.await("word of h1", func(v overlay.View) bool { return v.Settled })
	a.stop()
	b.stop()
	began := time.Now()
	c := l.start(l.conf(3))
	c.await("time", func(v overlay.View) bool { return v.Settled })
	if took := time.Since(began); took < l.conf(3).Live/2 { // longer is a slow machine
		t.Errorf("without one: %s, want about %s", took, l.conf(3).Live)
	}
	if got, err := l.client().Get(context.Background(), keys{DefaultPrefix}.joining("h3")); err != nil || len(got.Kvs) > 0 {
		t.Errorf("the question is still there: %v, %v", got, err)
	}
}

// The moment of a mirror names the latest claim that there is, whatever comes and goes.
func TestLatestClaim(t *testing.T) {
	m := newMirror(keys{DefaultPrefix})
	block := func(text string) string { return m.keys.block("net1", netip.MustParsePrefix(text)) }
	put := func(text string, revision int64) func() {
		return func() {
			m.put(&mvccpb.KeyValue{Key: []byte(block(text)), Value: []byte(`{"node":"h1"}`), ModRevision: revision})
		}
	}
	const first, second = "10.5.1.0/24", "10.5.2.0/24"
	for _, step := range []struct {
		does     string
		do       func()
		want     string
		revision int64
	}{
		{"nothing", func() {}, "", 0},
		{"one", put(first, 3), block(first), 3},
		{"a later one", put(second, 5), block(second), 5},
		{"the first again", put(first, 7), block(first), 7},
		{"the first goes", func() { m.drop(block(first)) }, block(second), 5},
		{"the second goes", func() { m.drop(block(second)) }, "", 0},
	} {
		step.do()
		if at := m.moment(); at.Witness != step.want || at.WitnessRevision != step.revision {
			t.Errorf("%s: %s at %d, want %s at %d", step.does, at.Witness, at.WitnessRevision, step.want, step.revision)
		}
	}
}
