package ipamstore

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// table is the pool as its files tell it.
type table struct {
	entries map[Owner]*entry
	files   []Held            // every file that is not the store's own
	barred  []netip.Addr      // addresses named by something that is no file
	listed  map[Owner]*entry  // what the index said
	buckets map[string][]byte // the index's owner table as it was
	blocks  []string          // the files of its bitmap
}

// ownFile says whether a name in the pool's directory is not a lease by intent.
func ownFile(name string) bool {
	return name == pooldir.LockFile || strings.HasPrefix(name, cursorPrefix)
}

// scan reads every lease file, and adds what the index knows of the holders.
func (x *session) scan() (*table, error) {
	before, err := x.dir.Mtime()
	if err != nil {
		return nil, x.dir.Fail("read", "", err)
	}
	t := &table{entries: map[Owner]*entry{}}
	list, err := x.dir.Entries()
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		if !ownFile(f.Name()) {
			t.add(x.dir, f.Name(), f.Type().IsRegular())
		}
	}
	if now, err := x.dir.Mtime(); err != nil || !now.Equal(before) {
		x.suspect = true
	}
	if err := t.readIndex(x); err != nil {
		return nil, err
	}
	t.merge()
	return t, nil
}

// add takes one file of the pool's directory into the table.
func (t *table) add(d pooldir.Dir, name string, regular bool) {
	h := Held{File: name}
	a, err := netip.ParseAddr(name)
	if err != nil || a.String() != name || a.Zone() != "" || a.Is4In6() {
		h.Problem = "is not named by an address"
		t.files = append(t.files, h)
		return
	}
	h.Addr = a
	kind, l := fileBarrier, leaseFile{problem: "is not a regular file"}
	if regular {
		kind, l = readLease(d, name)
	}
	h.Owner, h.Problem, h.Since = l.owner, l.problem, time.Unix(0, l.since)
	switch kind {
	case fileMissing:
		return // removed by a program that did not lock
	case fileBarrier:
		t.barred = append(t.barred, a)
	case fileLease:
		e := t.entries[l.owner]
		if e == nil {
			e = &entry{Holder: Holder{Owner: l.owner}}
			t.entries[l.owner] = e
		}
		e.addrs = append(e.addrs, leased{a, l.since})
	}
	t.files = append(t.files, h)
}

// readIndex reads the index's owner table and the names of its bitmap.
func (t *table) readIndex(x *session) error {
	t.listed, t.buckets = map[Owner]*entry{}, map[string][]byte{}
	if x.idx.Fd < 0 {
		return nil
	}
	list, err := x.idx.Entries()
	if err != nil {
		return err
	}
	for _, f := range list {
		name := f.Name()
		switch {
		case strings.HasPrefix(name, blockPrefix):
			t.blocks = append(t.blocks, name)
		case strings.HasPrefix(name, bucketPrefix):
			data, _, err := x.idx.Read(name, bucketLimit)
			if err != nil {
				return x.idx.Fail("read", name, err)
			}
			t.buckets[name] = data
			parseBucket(data, func(_ []byte, e *entry) { t.listed[e.Owner] = e })
		}
	}
	return nil
}

// merge gives the holders what the index knows of them, if it speaks of the
// same file: host-local may have leased the same address to the same container
// in a new namespace.
func (t *table) merge() {
	for o, e := range t.entries {
		sorting.Stable(e.addrs, func(a, b leased) int { return a.addr.Compare(b.addr) })
		old := t.listed[o]
		if old == nil || !slices.ContainsFunc(e.addrs, old.has) {
			continue
		}
		e.Holder = old.Holder
	}
	for i := range t.files {
		if f := &t.files[i]; f.Problem == "" {
			f.Holder = t.entries[f.Owner].Holder
		}
	}
	sorting.Stable(t.files, func(a, b Held) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.File, b.File))
	})
}

func (e *entry) has(l leased) bool { return slices.Contains(e.addrs, l) }

// problems counts the files that are no leases.
func (t *table) problems() int {
	n := 0
	for _, f := range t.files {
		if f.Problem != "" {
			n++
		}
	}
	return n
}

// rebuild makes the index anew from the lease files. In the first Apply of a
// boot it also drops what an earlier boot left.
func (x *session) rebuild() error {
	now, err := x.dir.Mtime()
	if err != nil {
		return x.dir.Fail("read", "", err)
	}
	known := x.state.clean && x.state.stamp.Equal(now)
	if err := x.touch(); err != nil {
		return err
	}
	t, err := x.scan()
	if err != nil {
		return err
	}
	lost := x.lost(t)
	if x.mode == looking && len(lost) > 0 {
		x.indexed, x.table = false, t // the index knows of them for a caller that may change something
		return nil
	}
	if err := x.restore(t, lost); err != nil {
		return err
	}
	if x.state.boot != x.boot {
		if err := x.newBoot(t, known); err != nil {
			return err
		}
		// The remaining leases are of this boot, before the index lists it.
		x.state.boot, x.state.clean = x.boot, false
		if err := x.idx.Update(stateFile, x.state.bytes(), 0); err != nil {
			return err
		}
	}
	x.resetIndex()
	if err := errors.Join(x.writeOwners(t), x.writeBits(t)); err != nil {
		return err
	}
	x.state.problems = t.problems()
	x.indexed, x.table = true, nil
	return x.commit()
}

// lease is an address and its holder.
type lease struct {
	Holder
	leased
}

// lost returns the leases that the index lists and whose file another program
// removed while a live link has the address. After a reboot no link has.
func (x *session) lost(t *table) (all []lease) {
	if x.state.boot != x.boot {
		return nil
	}
	var named map[netip.Addr]bool
	for o, e := range t.listed {
		for _, l := range e.addrs {
			if now := t.entries[o]; now != nil && slices.ContainsFunc(now.addrs, func(n leased) bool { return n.addr == l.addr }) {
				continue
			}
			if named == nil {
				named = t.named()
			}
			if !named[l.addr] && x.s.inUse(e.Holder, l.addr) {
				named[l.addr] = true
				all = append(all, lease{e.Holder, l})
			}
		}
	}
	return all
}

// restore makes lost leases again.
func (x *session) restore(t *table, all []lease) error {
	for _, l := range all {
		name := l.addr.String()
		if err := x.create(name, l.Owner, l.since); err != nil {
			return err
		}
		t.add(x.dir, name, true)
		t.entries[l.Owner].Holder = l.Holder
	}
	return nil
}

// named returns the addresses that name a file of the pool's directory.
func (t *table) named() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, f := range t.files {
		all[f.Addr] = true
	}
	return all
}

// writeOwners makes the buckets of the owner table what t says. Those that
// are right already are left alone.
func (x *session) writeOwners(t *table) error {
	want := map[string][]byte{}
	for _, e := range t.sorted() {
		name := bucketFile(e.Owner)
		want[name] = append(want[name], e.line()...)
	}
	for name := range t.buckets {
		if want[name] == nil {
			if err := x.idx.Remove(name); err != nil {
				return err
			}
		}
	}
	for name, data := range want {
		var err error
		if old, ok := t.buckets[name]; !ok {
			err = x.idx.Update(name, data, 0)
		} else if !bytes.Equal(old, data) {
			err = x.idx.Replace(name, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sorted returns the entries in the order of their owners.
func (t *table) sorted() []*entry {
	var out []*entry
	for _, e := range t.entries {
		out = append(out, e)
	}
	sorting.Stable(out, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
	})
	return out
}

// writeBits makes the bitmap anew.
func (x *session) writeBits(t *table) error {
	for _, name := range t.blocks {
		if err := x.idx.Remove(name); err != nil {
			return err
		}
	}
	held := map[netip.Addr]bool{}
	for _, a := range t.barred {
		held[a] = true
	}
	for _, e := range t.entries {
		for _, l := range e.addrs {
			held[l.addr] = true
		}
	}
	resting, err := x.tidyQueue(held)
	if err != nil {
		return err
	}
	taken := slices.AppendSeq(resting, maps.Keys(held))
	sorting.Stable(taken, netip.Addr.Compare)
	for _, a := range taken {
		if err := x.bits.mark(a); err != nil {
			return err
		}
	}
	return nil
}
