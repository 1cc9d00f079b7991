package responder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/plain"
)

// Counts are the queries that programs with this layout have read since the first ADD of a name.
type Counts struct {
	// Foreign ones went on; ln-agent, if it runs, counts them, too.
	Foreign uint64 `json:"foreign"`
	// Answered ones had addresses or a name for an answer, NoData ones none: the name has no
	// record of what was asked.
	Answered uint64 `json:"answered"`
	NoData   uint64 `json:"nodata"`
}

// countsPrefix begins the names of the pins of what programs count in. Those of another layout
// have another one.
func countsPrefix() string { return "counts-" + strconv.Itoa(scratchSize) + "-" }

// Counts returns what was counted; zero if no names are in the kernel. It takes no lock.
func (r *Responder) Counts(context.Context) (sum Counts, err error) {
	dir, err := r.dir()
	if err != nil {
		return sum, err
	}
	pins, err := plain.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return sum, fmt.Errorf("counts of names in the kernel: %w", err)
	}
	for _, pin := range pins {
		if !strings.HasPrefix(pin.Name(), countsPrefix()) {
			continue
		}
		one, err := countsOf(filepath.Join(dir, pin.Name()))
		if err != nil && !errors.Is(err, bpf.ErrNotFound) { // it went this moment
			return sum, fmt.Errorf("counts of names in the kernel: %w", err)
		}
		sum.Foreign, sum.Answered, sum.NoData = sum.Foreign+one.Foreign, sum.Answered+one.Answered, sum.NoData+one.NoData
	}
	return sum, nil
}

// countsOf reads what one release's program has counted.
func countsOf(path string) (sum Counts, err error) {
	m, err := bpf.PinnedMap(path, scratchSpec)
	if err != nil {
		return sum, err
	}
	defer m.Close()
	cpus, err := possibleCPUs()
	if err != nil {
		return sum, err
	}
	err = m.EachCPU(make([]byte, 4), cpus, func(value []byte) {
		for i, n := range []*uint64{&sum.Foreign, &sum.Answered, &sum.NoData} {
			*n += binary.LittleEndian.Uint64(value[countsAt+8*i:])
		}
	})
	return sum, err
}

// possibleCPUs is how many CPUs there may be, with those that are off: a per-CPU map has a value
// for each.
func possibleCPUs() (n int, err error) {
	const path = "/sys/devices/system/cpu/possible"
	text, err := plain.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") { // as in 0-3,8
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.Atoi(from)
		if err != nil {
			return 0, fmt.Errorf("%s: %q: %w", path, text, err)
		}
		last, err := strconv.Atoi(to)
		if err != nil {
			return 0, fmt.Errorf("%s: %q: %w", path, text, err)
		}
		n += last - first + 1
	}
	return n, nil
}
