package ipamstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

var errNoPool error = &sentinel.Error{Text: "pool does not exist"}

// mode says what a critical section is for.
type mode int

const (
	existing mode = iota // the pool must exist
	looking              // likewise, and no lease may change
	making               // an Apply: the pool is made if it is missing
)

// session is one critical section: the pool's directory, locked, and its index.
type session struct {
	s    *Store
	dir  pooldir.Dir // the lease files
	idx  pooldir.Dir // the index; fd is -1 if it cannot be had
	lock int
	mode mode
	boot string
	self Owner // the owner for which an Apply works

	state    state
	touched  bool // the state on disk says "dirty"
	suspect  bool // the index cannot be right: stay dirty
	squeezed bool // there is no dead holder left

	// Either the index is used and kept (indexed), or the leases were read
	// from the lease files into table and the index is left alone: when it
	// cannot be written, or when it is of an earlier boot, which the first
	// Apply settles.
	indexed bool
	table   *table
	bits    bitmap
	owners  owners
	all     []*entry // cache of holders
}

// do runs fn with the pool locked. It returns errNoPool if there is no pool
// and the mode is existing.
func (s *Store) do(ctx context.Context, m mode, fn func(*session) error) error {
	x := &session{s: s, mode: m, dir: pooldir.Dir{Fd: -1}, idx: pooldir.Dir{Fd: -1}, lock: -1}
	if err := x.readBoot(); err != nil {
		return err
	}
	deadline := time.Now().Add(s.conf.LockTimeout)
	err := x.open(ctx, deadline)
	for errors.Is(err, pooldir.ErrReplaced) && time.Now().Before(deadline) && ctx.Err() == nil {
		x.close()
		err = x.open(ctx, deadline)
	}
	defer x.close()
	if err != nil {
		return err
	}
	return fn(x)
}

func (x *session) readBoot() error {
	const file = "/proc/sys/kernel/random/boot_id"
	if x.boot = x.s.conf.BootID; x.boot != "" {
		return nil
	}
	data, err := plain.ReadFile(file)
	if x.boot = strings.TrimSpace(string(data)); err == nil && x.boot == "" {
		err = errors.New("is empty")
	}
	if err != nil {
		return pooldir.Failure("read", file, err)
	}
	return nil
}

func (x *session) open(ctx context.Context, deadline time.Time) error {
	c, create := &x.s.conf, x.mode == making
	data, err := pooldir.Open(c.DataDir)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
			return pooldir.Failure("make", c.DataDir, errors.Unwrap(err))
		}
		data, err = pooldir.Open(c.DataDir)
	}
	if err == nil {
		defer data.Close()
		x.dir, err = data.Sub(c.Network)
		if create && errors.Is(err, fs.ErrNotExist) {
			x.dir, err = data.Ensure(c.Network, 0o755)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNoPool, err)
	}
	if err != nil {
		return err
	}
	if x.lock, err = pooldir.Lock(ctx, x.dir, time.Until(deadline)); err != nil {
		return err
	}
	if err := x.openIndex(data); err != nil && create {
		return err
	}
	if create && c.RebootPolicy == RebootKeep {
		return x.syncParents(data)
	}
	return nil
}

// openIndex opens the index, made if missing, and reads its state.
func (x *session) openIndex(data pooldir.Dir) error {
	all, err := data.Ensure(pooldir.IndexDir, 0o700)
	if err != nil {
		return err
	}
	defer all.Close()
	if x.idx, err = all.Ensure(x.s.conf.Network, 0o700); err != nil {
		return err
	}
	x.resetIndex()
	text, _, err := x.idx.Read(stateFile, stateSize+1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return x.idx.Fail("read", stateFile, err)
	}
	x.state = parseState(text)
	return nil
}

func (x *session) resetIndex() {
	x.bits = bitmap{x.idx, map[netip.Addr]*block{}}
	x.owners = owners{x.idx, map[string][]byte{}}
}

// syncParents makes a directory that is new survive a power cut.
func (x *session) syncParents(data pooldir.Dir) error {
	if x.state.boot != "" {
		return nil
	}
	return data.Sync()
}

// close ends the critical section.
func (x *session) close() {
	if x.lock >= 0 {
		_ = unix.Close(x.lock)
	}
	x.idx.Close()
	x.dir.Close()
	x.lock, x.idx.Fd, x.dir.Fd = -1, -1, -1
}

// ready makes the index usable: it is, or it is rebuilt. Where it must not or
// cannot be rebuilt the leases are read into x.table, except for an Apply,
// which needs the index. Only an Apply settles what an earlier boot left.
func (x *session) ready() error {
	apply := x.mode == making
	current := x.state.boot == x.boot
	if current && x.state.clean {
		if now, err := x.dir.Mtime(); err == nil && now.Equal(x.state.stamp) {
			x.indexed = true
			return nil
		}
	}
	if apply || current && x.idx.Fd >= 0 {
		err := x.rebuild()
		if err == nil || apply {
			return err
		}
	}
	t, err := x.scan()
	x.indexed, x.table = false, t
	return err
}

// touch notes on disk that a change is under way. It comes before any change.
func (x *session) touch() error {
	if x.touched || x.idx.Fd < 0 {
		return nil
	}
	st := x.state
	st.clean = false
	if err := x.idx.Update(stateFile, st.bytes(), 0); err != nil {
		return err
	}
	x.touched = true
	return nil
}

// commit writes the index back and declares it good.
func (x *session) commit() error {
	if !x.touched || !x.indexed {
		return nil
	}
	if err := x.bits.flush(); err != nil {
		return err
	}
	if x.suspect {
		return nil
	}
	stamp, err := x.dir.Stamp()
	if err != nil {
		return nil // not our directory: the index is rebuilt each time
	}
	x.state.stamp, x.state.clean = stamp, true
	if err := x.idx.Update(stateFile, x.state.bytes(), 0); err != nil {
		return err
	}
	x.touched = false
	return nil
}

// path names the pool's directory in messages.
func (s *Store) path() string { return filepath.Join(s.conf.DataDir, s.conf.Network) }
