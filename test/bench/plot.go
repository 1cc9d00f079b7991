package main

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// plot is ADD latency against how many containers are present.
type plot struct{ lines []*line }

type line struct {
	name   string
	points []point
}

type point struct {
	present int
	ms      float64
}

func (p *plot) add(name string, present int, took durations) {
	at := point{present, float64(took.percentile(50)) / 1e6}
	for _, l := range p.lines {
		if l.name == name {
			l.points = append(l.points, at)
			return
		}
	}
	p.lines = append(p.lines, &line{name, []point{at}})
}

// The drawing, in pixels: margins, and the space the lines have.
const (
	left, top     = 60, 50
	width, height = 500, 320
	gap, sample   = 15, 36 // before the legend, and of a line's sample in it
	letter        = 8      // at most, on average over a name
)

// legend is how wide the names of the lines are.
func (p *plot) legend() int {
	longest := 0
	for _, l := range p.lines {
		longest = max(longest, utf8.RuneCountInString(l.name))
	}
	return gap + sample + letter*longest
}

// look is how the contestants are drawn: ours in blue, theirs in other colours,
// the lesser of two dashed. The dots differ, too, for readers without colour vision.
var look = map[string]struct{ colour, dash, dot string }{
	nameOurs:          {"#1f5fbf", "", "circle"},
	nameChained:       {"#1f5fbf", "6 4", "circle"},
	"ours, bare":      {"#1f5fbf", "2 3", "circle"},
	nameNFTables:      {"#c2410c", "", "square"},
	nameIPTables:      {"#7a1fa2", "", "square"},
	"reference, bare": {"#c2410c", "2 3", "square"},
}

// svg draws the plot: time on a logarithmic scale.
func (p *plot) svg() string {
	lowest, highest, most := p.bounds()
	x := func(present int) float64 { return left + width*float64(present)/float64(max(most, 1)) }
	y := func(ms float64) float64 {
		return top + height*(1-math.Log(ms/lowest)/math.Log(highest/lowest))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<title>ADD latency against containers present</title>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="%d" y="25" font-size="15">ADD, median, against containers present (log scale)</text>
`, left+width+p.legend(), top+height+60, left)
	for ms := lowest; ms <= highest*1.001; ms = nextTick(ms) {
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g ms</text>`+"\n",
			left, y(ms), width, left-6, y(ms)+4, math.Round(ms*10)/10)
	}
	for _, n := range p.ticks() {
		fmt.Fprintf(&b, `<path d="M%.1f %dv%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			x(n), top, height, x(n), top+height+18, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">containers present</text>`+"\n", left+width/2, top+height+42)
	for i, l := range p.lines {
		l.draw(&b, x, y)
		at := top + 10 + 24*i
		l.sample(&b, left+width+gap, at)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (l *line) draw(b *strings.Builder, x func(int) float64, y func(float64) float64) {
	style := look[l.name]
	var corners []string
	for _, pt := range l.points {
		corners = append(corners, fmt.Sprintf("%.1f,%.1f", x(pt.present), y(pt.ms)))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"/>`+"\n",
		strings.Join(corners, " "), style.colour, style.dash)
	for _, pt := range l.points {
		dot(b, style.dot, style.colour, x(pt.present), y(pt.ms))
	}
}

// sample is the line's entry in the legend.
func (l *line) sample(b *strings.Builder, x, y int) {
	style := look[l.name]
	fmt.Fprintf(b, `<path d="M%d %dh30" stroke="%s" stroke-width="2" stroke-dasharray="%s"/>`, x, y, style.colour, style.dash)
	dot(b, style.dot, style.colour, float64(x+15), float64(y))
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", x+sample, y+4, l.name)
}

func dot(b *strings.Builder, kind, colour string, x, y float64) {
	if kind == "square" {
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="7" height="7" fill="%s"/>`, x-3.5, y-3.5, colour)
		return
	}
	fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`, x, y, colour)
}

// bounds are the ends of the scales: of time at a 1, 2 or 5, of containers.
func (p *plot) bounds() (lowest, highest float64, most int) {
	lowest, highest = math.Inf(1), 0
	for _, l := range p.lines {
		for _, pt := range l.points {
			lowest, highest, most = min(lowest, pt.ms), max(highest, pt.ms), max(most, pt.present)
		}
	}
	low := math.Pow(10, math.Floor(math.Log10(lowest)))
	for nextTick(low) <= lowest {
		low = nextTick(low)
	}
	high := low
	for high < highest {
		high = nextTick(high)
	}
	return low, high, most
}

// nextTick is the next of 1, 2, 5, 10, 20, …
func nextTick(ms float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(ms*1.001)))
	switch digit := math.Round(ms / decade); {
	case digit < 2:
		return 2 * decade
	case digit < 5:
		return 5 * decade
	}
	return 10 * decade
}

func (p *plot) ticks() []int {
	var all []int
	if len(p.lines) > 0 {
		for _, pt := range p.lines[0].points {
			all = append(all, pt.present)
		}
	}
	return all
}
