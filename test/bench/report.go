package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// report prints what is found as it comes and keeps it for the document.
type report struct {
	out     io.Writer
	text    strings.Builder
	targets []target
	plot    *plot
}

// target is a line of the table of targets.
type target struct{ what, want, got, verdict string }

// limit records a target whose value must not be above most; 0: there is none.
func (r *report) limit(what, want string, value, most float64, got string) {
	verdict := "**missed**" // also without a value
	switch {
	case most == 0:
		verdict = ""
	case value <= most:
		verdict = "met"
	}
	r.targets = append(r.targets, target{what, want, got, verdict})
}

// print writes text now and into the document.
func (r *report) print(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.text.WriteString(text)
	_, _ = io.WriteString(r.out, text)
}

// table is one of the document; the first column is text, the others numbers.
type table struct {
	columns []string
	rows    [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String is the table in Markdown, with aligned columns for readers of the source.
func (t *table) String() string {
	width := make([]int, len(t.columns))
	for _, row := range append(slices.Clone(t.rows), t.columns) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, cell := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString("| " + cell + pad)
			} else {
				b.WriteString(" | " + pad + cell)
			}
		}
		b.WriteString(" |\n")
	}
	line(t.columns)
	for i, w := range width {
		if i == 0 {
			b.WriteString("|" + strings.Repeat("-", w+2))
		} else {
			b.WriteString("|" + strings.Repeat("-", w+1) + ":")
		}
	}
	b.WriteString("|\n")
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// print puts the table under its title.
func (t *table) print(r *report, title string) { r.print("\n### %s\n\n%s", title, t) }

// targetTable is the table of all targets there are figures for.
func (r *report) targetTable() *table {
	t := &table{columns: []string{"target", "wanted", "measured", ""}}
	for _, g := range r.targets {
		t.row(g.what, g.want, g.got, g.verdict)
	}
	return t
}

// verbs is a table of ADD, CHECK and DEL.
type verbs struct{ table }

func verbTable() *verbs {
	return &verbs{table{columns: []string{"ms", "ADD p50", "p99", "CHECK p50", "p99", "DEL p50", "p99"}}}
}

func (t *verbs) row(name string, cells ...string) { t.table.row(append([]string{name}, cells...)...) }

// verbs adds a row for each chain.
func (t *verbs) verbs(chains ...*chain) {
	for _, c := range chains {
		t.row(c.name, c.add.ms(50), c.add.ms(99), c.check.ms(50), c.check.ms(99), c.del.ms(50), c.del.ms(99))
	}
}

// compare adds a row for each chain, and one for the first of ours over each of
// the reference, which come after ours.
func (t *verbs) compare(chains []*chain, ours int) {
	t.verbs(chains...)
	for _, c := range chains[min(ours, len(chains)):] {
		t.row("ours / "+c.name, t.ratios(chains[0], c)...)
	}
}

// ratios are those of a over b.
func (t *verbs) ratios(a, b *chain) []string {
	var cells []string
	for _, d := range [][2]durations{{a.add, b.add}, {a.check, b.check}, {a.del, b.del}} {
		cells = append(cells, short(ratio(d[0], d[1], 50)), short(ratio(d[0], d[1], 99)))
	}
	return cells
}
