package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapSpec is what a map is made of.
type MapSpec struct {
	Name           string // at most 15 bytes
	Type           int    // unix.BPF_MAP_TYPE_HASH
	Key, Value     int    // bytes
	Most           int    // keys
	AllocateByNeed bool   // memory for keys, of a hash, as they come
}

// Map is an open map, with keys and values of these sizes.
type Map struct {
	fd         int
	key, value int
}

type createAttr struct {
	mapType, keySize, valueSize, maxEntries, flags, innerFD, numaNode uint32
	name                                                              [16]byte
}

// NewMap makes a map.
func NewMap(s MapSpec) (*Map, error) {
	a := createAttr{mapType: uint32(s.Type), keySize: uint32(s.Key), valueSize: uint32(s.Value), maxEntries: uint32(s.Most)}
	if s.AllocateByNeed {
		a.flags = unix.BPF_F_NO_PREALLOC
	}
	copy(a.name[:15], s.Name)
	fd, err := allocate(unix.BPF_MAP_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
	if err != nil {
		return nil, fmt.Errorf("make BPF map %s: %w", s.Name, err)
	}
	return &Map{fd: fd, key: s.Key, value: s.Value}, nil
}

// FD is the map's descriptor.
func (m *Map) FD() int { return m.fd }

// Close closes the map, which lives on while it is pinned or a program has it.
func (m *Map) Close() { _ = unix.Close(m.fd) }

type elementAttr struct {
	fd    uint32
	_     uint32
	key   unsafe.Pointer
	value unsafe.Pointer // or the next key
	flags uint64
}

func (m *Map) do(cmd int, key, value []byte, flags uint64) error {
	a := elementAttr{fd: uint32(m.fd), key: unsafe.Pointer(unsafe.SliceData(key)), value: unsafe.Pointer(unsafe.SliceData(value)), flags: flags}
	_, err := call(cmd, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return err
}

// check refuses what would have the kernel read or write behind a slice.
func (m *Map) check(key, value []byte) error {
	if len(key) != m.key || value != nil && len(value) != m.value {
		return fmt.Errorf("key of %d and value of %d bytes: %w", len(key), len(value), unix.EINVAL)
	}
	return nil
}

// Lookup reads the value of a key; ErrNotFound if it is not there.
func (m *Map) Lookup(key, value []byte) error {
	if err := m.check(key, value); err != nil {
		return err
	}
	return m.do(unix.BPF_MAP_LOOKUP_ELEM, key, value, 0)
}

// Update sets the value of a key; ErrFull if it is new, and the map has no room.
func (m *Map) Update(key, value []byte) error { return m.set(key, value, unix.BPF_ANY) }

// Create is Update for a key that is not there; else it is ErrExists.
func (m *Map) Create(key, value []byte) error { return m.set(key, value, unix.BPF_NOEXIST) }

func (m *Map) set(key, value []byte, flags uint64) error {
	if err := m.check(key, value); err != nil {
		return err
	}
	return m.do(unix.BPF_MAP_UPDATE_ELEM, key, value, flags)
}

// Delete removes a key; a missing one is success.
func (m *Map) Delete(key []byte) error {
	if err := m.check(key, nil); err != nil {
		return err
	}
	err := m.do(unix.BPF_MAP_DELETE_ELEM, key, nil, 0)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// next sets next to the key behind key; nil: to the first one. ErrNotFound: there is none.
func (m *Map) next(key, next []byte) error {
	return m.do(unix.BPF_MAP_GET_NEXT_KEY, key, next, 0)
}

// Empty says that the map has no key.
func (m *Map) Empty() (bool, error) {
	err := m.next(nil, make([]byte, m.key))
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return false, err
}

// Each calls fn with every key and its value, both for the time of the call. No other caller may
// remove keys meanwhile, nor may fn.
func (m *Map) Each(fn func(key, value []byte)) error {
	key, value := make([]byte, m.key), make([]byte, m.value)
	var before []byte
	for {
		err := m.next(before, key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := m.Lookup(key, value); err == nil {
			fn(key, value)
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		before = append(before[:0], key...)
	}
}
