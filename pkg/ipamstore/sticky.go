package ipamstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// The addresses that a workload held last are remembered in a cache of small files, one
// line a workload. It is a hint only: it survives reboots, and old names are forgotten
// when their file is full.
const (
	stickyPrefix = "s."
	stickyFiles  = 4096
	stickyLines  = 32 // kept in one file
	stickyLimit  = 1 << 20
)

func stickyFile(workload string) string {
	return fmt.Sprintf("%s%03x", stickyPrefix, hashOf(workload)%stickyFiles)
}

// remembered returns what a workload held last, and the content of the file
// that says so.
func (x *session) remembered(workload string) ([]netip.Addr, []byte, error) {
	name := stickyFile(workload)
	data, _, err := x.idx.Read(name, stickyLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, x.idx.Fail("read", name, err)
	}
	var out []netip.Addr
	for line := range bytes.Lines(data) {
		of, list, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "\t")
		if of != workload {
			continue
		}
		out = nil // the last line counts
		for _, f := range strings.Split(list, ",") {
			if a, err := netip.ParseAddr(f); err == nil {
				out = append(out, a)
			}
		}
	}
	return out, data, nil
}

// remember records what a workload holds now.
func (x *session) remember(workload string, leases []Lease) error {
	old, data, err := x.remembered(workload)
	if err != nil {
		return err
	}
	var list []string
	same := len(old) == len(leases)
	for i, l := range leases {
		list = append(list, l.Addr.Addr().String())
		same = same && old[i] == l.Addr.Addr()
	}
	if same {
		return nil
	}
	var keep [][]byte
	for line := range bytes.Lines(data) {
		if of, _, ok := bytes.Cut(line, []byte{'\t'}); ok && string(of) != workload && bytes.HasSuffix(line, []byte{'\n'}) {
			keep = append(keep, line)
		}
	}
	keep = append(keep, fmt.Appendf(nil, "%s\t%s\n", workload, strings.Join(list, ",")))
	return x.idx.Replace(stickyFile(workload), bytes.Join(keep[max(0, len(keep)-stickyLines):], nil))
}
