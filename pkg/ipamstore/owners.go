package ipamstore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/pooldir"
)

// The owner table says what each owner holds, and what lease files do not
// tell of it. It is a hash table of small files ("buckets"), one line an
// owner, so that one read finds an owner among a million. A change appends a
// line and strikes out the old one in place: neither needs a rename, and
// striking out needs no space on a full disk.
const (
	bucketCount  = 1024
	bucketPrefix = "o."
	bucketLimit  = 16 << 20 // bytes read of a bucket
	bucketSlack  = 4096     // bytes a bucket may have before lines struck out are dropped
	live, struck = '+', '-'
)

// entry is a line of the owner table.
type entry struct {
	Holder
	addrs []leased
}

// leased is an address and when its lease file was written.
type leased struct {
	addr  netip.Addr
	since int64 // nanoseconds since 1970: the modification time of the file
}

func hashOf(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	// FNV's low bits are weak for short input, so mix them.
	x := h.Sum64()
	x = (x ^ x>>32) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

func bucketFile(o Owner) string {
	return fmt.Sprintf("%s%03x", bucketPrefix, hashOf(o.ContainerID, o.IfName)%bucketCount)
}

// line returns the entry as a line of its bucket.
func (e *entry) line() []byte {
	b := []byte{live}
	for _, f := range []string{e.ContainerID, e.IfName, e.Netns, e.NetnsID, e.Workload} {
		b = append(append(b, f...), '\t')
	}
	for i, a := range e.addrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(a.addr.AppendTo(b), '@')
		b = strconv.AppendInt(b, a.since, 10)
	}
	return append(b, '\n')
}

// parseEntry reads a live line, without its newline.
func parseEntry(line []byte) (*entry, bool) {
	if len(line) == 0 || line[0] != live {
		return nil, false
	}
	rest := string(line[1:])
	var e entry
	for _, f := range []*string{&e.ContainerID, &e.IfName, &e.Netns, &e.NetnsID, &e.Workload} {
		var ok bool
		if *f, rest, ok = strings.Cut(rest, "\t"); !ok {
			return nil, false
		}
	}
	for rest != "" {
		var item string
		item, rest, _ = strings.Cut(rest, ",")
		text, since, _ := strings.Cut(item, "@")
		a, err := netip.ParseAddr(text)
		n, err2 := strconv.ParseInt(since, 10, 64)
		if err != nil || err2 != nil {
			return nil, false
		}
		e.addrs = append(e.addrs, leased{a, n})
	}
	return &e, e.ContainerID != "" && len(e.addrs) > 0
}

// parseBucket calls fn for each live, whole line. Others are passed over.
func parseBucket(data []byte, fn func(line []byte, e *entry)) {
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		if n < 0 {
			return
		}
		if e, ok := parseEntry(data[:n]); ok {
			fn(data[:n+1], e)
		}
		data = data[n+1:]
	}
}

// owners is the owner table on disk.
type owners struct {
	dir     pooldir.Dir
	buckets map[string][]byte // as read, and kept up to date
}

func (t *owners) load(name string) ([]byte, error) {
	if data, ok := t.buckets[name]; ok {
		return data, nil
	}
	data, _, err := t.dir.Read(name, bucketLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, t.dir.Fail("read", name, err)
	}
	t.buckets[name] = data
	return data, nil
}

// find returns the entry of an owner, or nil.
func (t *owners) find(o Owner) (*entry, error) {
	data, err := t.load(bucketFile(o))
	if err != nil {
		return nil, err
	}
	var found *entry
	for _, off := range linesOf(data, o) {
		line, _, _ := bytes.Cut(data[off:], []byte{'\n'})
		if e, ok := parseEntry(line); ok {
			found = e
		}
	}
	return found, nil
}

// linesOf returns where the live, whole lines of an owner start.
func linesOf(data []byte, o Owner) (out []int) {
	key := []byte(string(live) + o.ContainerID + "\t" + o.IfName + "\t")
	for off := 0; ; off++ {
		n := bytes.Index(data[off:], key)
		if n < 0 {
			return out
		}
		off += n
		if (off == 0 || data[off-1] == '\n') && bytes.IndexByte(data[off:], '\n') > 0 {
			out = append(out, off)
		}
	}
}

// set makes e the entry of owner o; nil is none.
func (t *owners) set(o Owner, e *entry) error {
	name := bucketFile(o)
	data, err := t.load(name)
	if err != nil {
		return err
	}
	end := len(data)
	if e != nil {
		if err := t.append(name, e.line()); err != nil {
			return err
		}
	}
	return t.strike(name, o, end)
}

func (t *owners) append(name string, line []byte) error {
	data := t.buckets[name]
	if n := len(data); n > 0 && data[n-1] != '\n' { // the rest of a write that was cut off
		line = append([]byte{'\n'}, line...)
	}
	if err := t.dir.Update(name, line, int64(len(data))); err != nil {
		return err
	}
	t.buckets[name] = append(data, line...)
	return nil
}

// strike takes the lines of o that start before end out of its bucket.
func (t *owners) strike(name string, o Owner, end int) error {
	data := t.buckets[name]
	old := linesOf(data[:end], o)
	for _, off := range old {
		data[off] = struck
	}
	if len(old) > 0 && len(data) > bucketSlack && mostlyStruck(data) {
		rest := liveLines(data)
		t.buckets[name] = rest
		if len(rest) == 0 {
			return t.dir.Remove(name)
		}
		return t.dir.Replace(name, rest)
	}
	for _, off := range old {
		if err := t.dir.Update(name, data[off:off+1], int64(off)); err != nil {
			return err
		}
	}
	return nil
}

// mostlyStruck says whether more lines are struck out than count.
func mostlyStruck(data []byte) bool {
	return bytes.Count(data, []byte{'\n', struck}) > bytes.Count(data, []byte{'\n', live})
}

// liveLines returns the lines of a bucket that count.
func liveLines(data []byte) (out []byte) {
	parseBucket(data, func(line []byte, _ *entry) { out = append(out, line...) })
	return out
}
