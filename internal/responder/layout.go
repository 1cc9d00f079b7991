package responder

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
)

// The layout of keys and values is that of program/respond.c. A change of it needs another
// version: programs of an earlier release go on with their own maps.
const (
	version = 1

	// Of a key: the network, the kind, the page, the name.
	kindAt  = 8
	pageAt  = 9
	nameAt  = 16
	maxName = 120 // bytes of a name, each label behind its length
	keySize = nameAt + maxName

	// Of a value: the turn, the pages, the slots used, the slots.
	pagesAt   = 4
	usedAt    = 6
	valueHead = 8
	slotSize  = 8 + 16
	slots     = 8
	valueSize = valueHead + slots*slotSize
	maxPages  = 256

	// Of a scratch: two keys, the counts of queries, and the packet.
	countsAt    = 2 * keySize
	scratchSize = countsAt + 3*8 + 24 + 12 + 1024 + 4

	kindLink      = 1
	kindContainer = 2
	kind4         = 4
	kind6         = 6
	kindPTR       = 12
	ofHost        = 0x80
)

// MostKeys is how many keys there is room for: a container takes three for each of its names and
// families, one for each address, and two.
const MostKeys = 1 << 17

var (
	namesSpec   = bpf.MapSpec{Name: "ln_names", Type: unix.BPF_MAP_TYPE_HASH, Key: keySize, Value: valueSize, Most: MostKeys, AllocateByNeed: true}
	scratchSpec = bpf.MapSpec{Name: "ln_scratch", Type: unix.BPF_MAP_TYPE_PERCPU_ARRAY, Key: 4, Value: scratchSize, Most: 1}
)

// hash is FNV-1a of 64 bits; never 0, which stands for none.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return max(h, 1)
}

func bytesOf(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// key is one of the map, for its first page.
type key []byte

// keyOf returns the key of a name; nil if the name is too long for one.
func keyOf(network string, kind byte, name string) key {
	k := numbered(kind, 0)
	copy(k, bytesOf(hash(network)))
	if wire(k[nameAt:], name) == 0 {
		return nil
	}
	return k
}

// numbered is the key of a link by its index, or of a container by its hash.
func numbered(kind byte, n uint64) key {
	k := make(key, keySize)
	k[kindAt] = kind
	copy(k[nameAt:], bytesOf(n))
	return k
}

func (k key) kind() byte   { return k[kindAt] }
func (k key) ofHost() bool { return k[kindAt]&ofHost != 0 }

// name is what the key is for, as text.
func (k key) name() string { return text(k[nameAt:]) }

// text is the name that wire has written.
func text(b []byte) (name string) {
	for len(b) > 0 && b[0] != 0 && int(b[0]) < len(b) {
		if name != "" {
			name += "."
		}
		name += string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	return name
}

// wire writes a name in lower case, each label behind its length, and returns how long it is; 0
// if there is no room for it.
func wire(to []byte, name string) int {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) >= len(to) {
		return 0
	}
	copy(to[1:], name)
	start := 0
	for at := range len(name) + 1 {
		if at < len(name) && name[at] != '.' {
			continue
		}
		if at == start || at-start > 63 {
			return 0
		}
		to[start] = byte(at - start)
		start = at + 1
	}
	return len(name) + 1
}

// slot is what an owner has of a key: an address, or numbers.
type slot struct {
	owner uint64
	data  [16]byte
}

func slotOf(owner uint64, a netip.Addr) slot {
	s := slot{owner: owner}
	copy(s.data[:], a.AsSlice())
	return s
}

// value is a page of slots, or of kindPTR a name behind its owner.
type value []byte

func (v value) pages() int { return max(1, int(binary.LittleEndian.Uint16(v[pagesAt:]))) }

// owner is that of a name.
func (v value) owner() uint64 { return binary.LittleEndian.Uint64(v[valueHead:]) }

func (v value) slots() (all []slot) {
	for i := range min(int(v[usedAt]), slots) {
		b := v[valueHead+i*slotSize:]
		all = append(all, slot{binary.LittleEndian.Uint64(b), [16]byte(b[8:])})
	}
	return all
}

func newValue(pages int, all []slot) value {
	v := make(value, valueSize)
	binary.LittleEndian.PutUint16(v[pagesAt:], uint16(pages))
	v[usedAt] = byte(len(all))
	for i, s := range all {
		b := v[valueHead+i*slotSize:]
		binary.LittleEndian.PutUint64(b, s.owner)
		copy(b[8:], s.data[:])
	}
	return v
}

// newPointer is the value of a name for an address; nil if the name is too long for one.
func newPointer(owner uint64, name string) value {
	v := newValue(1, []slot{{owner: owner}})
	n := wire(v[valueHead+8:valueHead+8+maxName], name)
	if v[usedAt] = byte(n); n == 0 {
		return nil
	}
	return v
}

// reverse is the name that a query for the name of an address asks for.
func reverse(a netip.Addr) (name string) {
	raw := a.AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if a.Is4() {
			name += strconv.Itoa(int(raw[i])) + "."
		} else {
			name += strconv.FormatUint(uint64(raw[i]&15), 16) + "." + strconv.FormatUint(uint64(raw[i]>>4), 16) + "."
		}
	}
	if a.Is4() {
		return name + "in-addr.arpa"
	}
	return name + "ip6.arpa"
}
