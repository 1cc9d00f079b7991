package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	for _, tt := range []struct {
		of   durations
		p    int
		want time.Duration
	}{
		{nil, 50, 0},
		{durations{7}, 99, 7},
		{durations{3, 1, 2}, 50, 2},
		{durations{4, 3, 2, 1}, 50, 2},
		{durations{4, 3, 2, 1}, 99, 4},
	} {
		if got := tt.of.percentile(tt.p); got != tt.want {
			t.Errorf("p%d of %v is %d, want %d", tt.p, tt.of, got, tt.want)
		}
	}
}

func TestTableIsMarkdown(t *testing.T) {
	got := table{columns: []string{"", "µs"}, rows: [][]string{{"ours", "1"}}}
	const want = "|      | µs |\n|------|---:|\n| ours |  1 |\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestTicks(t *testing.T) {
	var got []float64
	for ms := 1.; ms <= 100; ms = nextTick(ms) {
		got = append(got, ms)
	}
	want := []float64{1, 2, 5, 10, 20, 50, 100}
	if len(got) != len(want) {
		t.Fatalf("ticks %v, want %v", got, want)
	}
	for i := range want {
		if diff := got[i]/want[i] - 1; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("ticks %v, want %v", got, want)
		}
	}
}

func TestPlotHoldsEveryPoint(t *testing.T) {
	var p plot
	for _, name := range []string{nameOurs, nameNFTables} {
		for _, size := range presentSizes {
			p.add(name, size, durations{time.Duration(3+size) * time.Millisecond})
		}
	}
	svg := p.svg()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for dot, of := range map[string]string{"<circle": "ours", `<rect x=`: "theirs"} {
		// one of each is the sample in the legend
		if got := strings.Count(svg, dot); got != len(presentSizes)+1 {
			t.Errorf("%d dots of %s, want %d", got, of, len(presentSizes)+1)
		}
	}
	var wide, high int
	if _, err := fmt.Sscanf(svg[strings.Index(svg, "viewBox"):], `viewBox="0 0 %d %d"`, &wide, &high); err != nil {
		t.Fatal(err)
	}
	if end := left + width + gap + sample + letter*len(nameNFTables); wide < end {
		t.Errorf("the picture ends at %d, the longest name at %d", wide, end)
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("a point is nowhere")
	}
}

func TestTargets(t *testing.T) {
	r := &report{out: io.Discard}
	r.limit("a", "≤ 1", 1, 1, "1")
	r.limit("b", "≤ 1", 1.01, 1, "1.01")
	r.limit("c", "", 7, 0, "7")
	r.limit("d", "≤ 1", math.NaN(), 1, "–")
	for i, want := range []string{"met", "**missed**", "", "**missed**"} {
		if got := r.targets[i].verdict; got != want {
			t.Errorf("target %s is %s, want %s", r.targets[i].what, got, want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		of   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{5}, 0},
		{[]float64{8, 10, 14}, .3},
		{[]float64{1, 10, 10, 10, 10, 10, 10, 90}, 0}, // one round that was disturbed is no noise
	} {
		if got := spread(tt.of); got != tt.want {
			t.Errorf("spread of %v is %v, want %v", tt.of, got, tt.want)
		}
	}
}
