package main

import (
	"fmt"
	"slices"
	"time"
)

// durations are what the same call took, in turn.
type durations []time.Duration

// percentile returns the p-th percentile, nearest rank; 0 of none.
func (d durations) percentile(p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// ms is the p-th percentile in milliseconds, a dash of none.
func (d durations) ms(p int) string {
	if len(d) == 0 {
		return "–"
	}
	return milliseconds(d.percentile(p))
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.0f", ms)
	case ms >= 100:
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.2f", ms)
}

// ratio is that of two p-th percentiles.
func ratio(a, b durations, p int) float64 {
	return float64(a.percentile(p)) / float64(b.percentile(p))
}

// times says how a compares with b: "0.25 (1/4.0)".
func times(r float64) string {
	if r > 0 && r < 1 {
		return fmt.Sprintf("%s (1/%.1f)", short(r), 1/r)
	}
	return short(r)
}

func short(f float64) string { return fmt.Sprintf("%.3g", f) }
