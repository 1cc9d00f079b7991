package ipamstore

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"
)

// Addresses that rest after their release stay marked in the bitmap, and are
// queued in a file in the order of their release: a header with the number of
// records that are done, then records of the machine's uptime and the address.
const (
	coolingFile   = "cooling"
	coolingHeader = 8
	coolingRecord = 8 + 16
	coolingLimit  = 64 << 20 // bytes
	coolingStep   = 512      // records looked at by an Apply that has no need of more
	coolingVoid   = -1       // uptime of a record that does not count
)

// queue is the content of the cooling file.
type queue []byte

func (x *session) coolingQueue() (queue, error) {
	if x.idx.Fd < 0 {
		return nil, nil
	}
	data, _, err := x.idx.Read(coolingFile, coolingLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, x.idx.Fail("read", coolingFile, err)
	}
	if len(data) < coolingHeader {
		return nil, nil
	}
	return queue(data), nil
}

func (q queue) len() int { return max(0, len(q)-coolingHeader) / coolingRecord }

// done returns how many records at the front do not count any more.
func (q queue) done() int {
	if len(q) < coolingHeader {
		return 0
	}
	return int(min(binary.BigEndian.Uint64(q), uint64(q.len())))
}

func (q queue) record(i int) (time.Duration, netip.Addr) {
	b := q[coolingHeader+i*coolingRecord:]
	return time.Duration(binary.BigEndian.Uint64(b)), netip.AddrFrom16([16]byte(b[8:24])).Unmap()
}

// rests says whether record i holds its address back still.
func (x *session) rests(q queue, i int, now time.Duration) bool {
	at, _ := q.record(i)
	return at != coolingVoid && at <= now && now-at < x.s.conf.Cooldown
}

// cool lets addresses rest that were released just now.
func (x *session) cool(addrs []netip.Addr) error {
	_, st, err := x.idx.Read(coolingFile, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return x.idx.Fail("read", coolingFile, err)
	}
	var data []byte
	off := st.Size
	if off < coolingHeader {
		data, off = make([]byte, coolingHeader), 0
	} else {
		off -= (off - coolingHeader) % coolingRecord // what a crash cut off
	}
	for _, a := range addrs {
		b := a.As16()
		data = binary.BigEndian.AppendUint64(data, uint64(x.s.uptime()))
		data = append(data, b[:]...)
	}
	return x.idx.Update(coolingFile, data, off)
}

// expire frees addresses that have rested long enough, looking at up to limit
// records, and reports whether it freed any.
func (x *session) expire(limit int) (bool, error) {
	q, err := x.coolingQueue()
	if err != nil || q == nil {
		return false, err
	}
	now, first := x.s.uptime(), q.done()
	next := first
	for next < q.len() && next-first < limit && !x.rests(q, next, now) {
		next++
	}
	if next == first {
		return false, nil
	}
	if err := x.touch(); err != nil {
		return false, err
	}
	for i := first; i < next; i++ {
		at, a := q.record(i)
		if kind, _ := readLease(x.dir, a.String()); at == coolingVoid || kind == fileLease || kind == fileBarrier {
			continue
		}
		if err := x.bits.unmark(a); err != nil {
			return false, err
		}
	}
	return true, x.dequeue(q, next)
}

// dequeue drops the first n records. The file goes when it is empty, and is
// written anew when it is large and mostly done.
func (x *session) dequeue(q queue, n int) error {
	switch {
	case n == q.len():
		return x.idx.Remove(coolingFile)
	case n > q.len()/2 && len(q) > 64<<10:
		rest := append(make([]byte, coolingHeader), q[coolingHeader+n*coolingRecord:]...)
		return x.idx.Replace(coolingFile, rest)
	}
	return x.idx.Update(coolingFile, binary.BigEndian.AppendUint64(nil, uint64(n)), 0)
}

// wake voids the records of addresses that are leased again before their time.
func (x *session) wake(addrs []netip.Addr) error {
	q, err := x.coolingQueue()
	if err != nil {
		return err
	}
	for i := q.done(); i < q.len(); i++ {
		at, a := q.record(i)
		if at == coolingVoid || !slices.Contains(addrs, a) {
			continue
		}
		void := binary.BigEndian.AppendUint64(nil, ^uint64(0))
		if err := x.idx.Update(coolingFile, void, int64(coolingHeader+i*coolingRecord)); err != nil {
			return err
		}
	}
	return nil
}

// queued returns the addresses in the queue: those that rest still, and those
// whose time is over but which no Apply has freed yet.
func (x *session) queued() (resting, over []netip.Addr, err error) {
	q, err := x.coolingQueue()
	if err != nil {
		return nil, nil, err
	}
	now := x.s.uptime()
	for i := q.done(); i < q.len(); i++ {
		switch at, a := q.record(i); {
		case x.rests(q, i, now):
			resting = append(resting, a)
		case at != coolingVoid:
			over = append(over, a)
		}
	}
	return resting, over, nil
}

// Resting returns the addresses that rest after their release, in the order in which they may be
// chosen again. Without Config.Cooldown, or a pool, there are none. It changes nothing.
//
// Errors are ErrLocked, ErrIO.
func (s *Store) Resting(ctx context.Context) (all []Resting, err error) {
	err = s.do(ctx, looking, func(x *session) error {
		q, err := x.coolingQueue()
		if err != nil {
			return err
		}
		now, wall := s.uptime(), time.Now()
		for i := q.done(); i < q.len(); i++ {
			if x.rests(q, i, now) {
				at, a := q.record(i)
				all = append(all, Resting{a, wall.Add(at - now), wall.Add(at - now + s.conf.Cooldown)})
			}
		}
		return nil
	})
	if errors.Is(err, errNoPool) {
		return nil, nil
	}
	return all, err
}

// tidyQueue writes the queue anew, as the index is rebuilt: one record for an
// address, none for those that are taken, and the right header. It returns
// the addresses left in it.
func (x *session) tidyQueue(taken map[netip.Addr]bool) ([]netip.Addr, error) {
	q, err := x.coolingQueue()
	if err != nil || q == nil {
		return nil, err
	}
	last := map[netip.Addr]int{}
	for i := q.done(); i < q.len(); i++ {
		if at, a := q.record(i); at != coolingVoid && !taken[a] {
			last[a] = i
		}
	}
	tidy := make([]byte, coolingHeader)
	var out []netip.Addr
	for i := q.done(); i < q.len(); i++ {
		_, a := q.record(i)
		if n, ok := last[a]; ok && n == i {
			out = append(out, a)
			tidy = append(tidy, q[coolingHeader+i*coolingRecord:][:coolingRecord]...)
		}
	}
	if len(out) == 0 {
		return nil, x.idx.Remove(coolingFile)
	}
	return out, x.idx.Replace(coolingFile, tidy)
}
