package bpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// EachCPU calls fn with the value that a key of a per-CPU map has on each of the CPUs that there
// may be on this machine, for the time of the call.
func (m *Map) EachCPU(key []byte, cpus int, fn func(value []byte)) error {
	if len(key) != m.key || cpus < 1 {
		return fmt.Errorf("key of %d bytes, %d CPUs: %w", len(key), cpus, unix.EINVAL)
	}
	each := (m.value + 7) &^ 7
	all := make([]byte, each*cpus)
	if err := m.do(unix.BPF_MAP_LOOKUP_ELEM, key, all, 0); err != nil {
		return err
	}
	for ; len(all) > 0; all = all[each:] {
		fn(all[:m.value])
	}
	return nil
}
