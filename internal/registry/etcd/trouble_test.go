package etcd

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/libnet-cni/libnet/internal/overlay"
)

// Whatever happens to etcd, a host sees in the end what others wrote meanwhile.
func TestTrouble(t *testing.T) {
	for name, tt := range map[string]struct {
		net     int
		members int
		do      func(l *lab, meanwhile func())
	}{
		"restart": {11, 1, func(l *lab, meanwhile func()) {
			l.members[0].Kill()
			l.members[0].Start()
			l.members[0].Await()
			meanwhile()
		}},
		"leader gone": {12, 3, func(l *lab, meanwhile func()) {
			leader := l.leader()
			leader.Kill()
			meanwhile()
			leader.Start()
		}},
		"compacted while away": {13, 1, func(l *lab, meanwhile func()) {
			l.members[0].Pause() // longer than the lease lives
			time.Sleep(4 * time.Second)
			l.members[0].Resume()
			meanwhile()
			c := l.client()
			resp, err := c.Get(context.Background(), "x")
			l.must(err)
			_, err = c.Compact(context.Background(), resp.Header.Revision)
			l.must(err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, tt.net, tt.members)
			a := l.start(l.conf(1))
			a.awaitMember("h1")
			a.agree("net1", terms("10.5.0.0/16", 24))
			block, err := a.claim()
			l.must(err)
			c := l.client()
			tt.do(l, func() {
				for end := time.Now().Add(time.Minute); ; {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					_, err := c.Put(ctx, DefaultPrefix+"/nodes/h9", `{"address":"192.0.2.9"}`)
					cancel()
					if err == nil {
						return
					}
					if time.Now().After(end) {
						t.Fatal(err)
					}
				}
			})
			v := a.await("news", func(v overlay.View) bool { return v.Members["h9"].Address.IsValid() && v.Members["h1"].Live })
			if own := v.Own("net1", "h1"); len(own) != 1 || own[0] != block {
				t.Errorf("blocks are %v, want %s", own, block)
			}
		})
	}
}

func (l *lab) leader() interface {
	Kill()
	Start()
} {
	l.t.Helper()
	for _, m := range l.members {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.URL}, DialTimeout: patience})
		l.must(err)
		s, err := c.Status(context.Background(), m.URL)
		l.must(err)
		l.must(c.Close())
		if s.Header.MemberId == s.Leader {
			return m
		}
	}
	l.t.Fatal("no leader")
	return nil
}

// A watch that asks for what is compacted ends the session, and the next one
// has it all.
func TestCompactedWatch(t *testing.T) {
	l := newLab(t, 14, 1)
	c := l.client()
	for range 3 {
		_, err := c.Put(context.Background(), DefaultPrefix+"/nodes/h9", `{"address":"192.0.2.9"}`)
		l.must(err)
	}
	resp, err := c.Get(context.Background(), "x")
	l.must(err)
	_, err = c.Compact(context.Background(), resp.Header.Revision)
	l.must(err)
	r := New(l.conf(1))
	m := newMirror(r.keys)
	m.revision = resp.Header.Revision - 2
	lease, err := r.announce(context.Background(), c)
	l.must(err)
	if err := r.follow(context.Background(), c, m, lease, func(overlay.View) {}); err == nil {
		t.Error("following what is compacted did not end")
	}
	l.start(l.conf(1)).await("member", func(v overlay.View) bool { return v.Members["h9"].Address.IsValid() })
}
