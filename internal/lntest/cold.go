package lntest

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// coldWay names the way that a process started by Cold times.
const coldWay = "LNTEST_COLD"

// Cold times ways to do the same, each time in a process of its own that has
// done nothing else, as a plugin has not: what reflection learns of a type, and
// each page of memory, is new to it. It reports the median of the first calls in
// microseconds.
func Cold(b *testing.B, ways map[string]func()) {
	b.Helper()
	if way := os.Getenv(coldWay); way != "" {
		start := time.Now()
		ways[way]()
		_, _ = os.NewFile(3, "result").WriteString(strconv.FormatInt(time.Since(start).Nanoseconds(), 10))
		os.Exit(0)
	}
	names := slices.Sorted(maps.Keys(ways))
	took := map[string][]int64{}
	for b.Loop() {
		for _, way := range names {
			ns, err := coldCall(b.Name(), way)
			if err != nil {
				b.Fatalf("%s: %v", way, err)
			}
			took[way] = append(took[way], ns)
		}
	}
	for _, way := range names {
		slices.Sort(took[way])
		b.ReportMetric(float64(took[way][len(took[way])/2])/1000, way+"-p50-µs")
	}
}

func coldCall(benchmark, way string) (ns int64, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$", "-test.bench=^"+benchmark+"$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), coldWay+"="+way)
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.CombinedOutput()
	_ = w.Close()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	var text [32]byte
	n, err := r.Read(text[:])
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text[:n]), 10, 64)
}
