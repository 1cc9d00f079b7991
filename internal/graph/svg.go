package graph

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// The picture is a column of hosts. Each is a box with a lane for each of its networks, and
// in a lane cards of containers in rows: nothing is placed by chance, so nothing overlaps.
// Letters are of one width, so what is longer than its card can be told, and is shortened.

// Lengths in pixels.
const (
	letter     = 6.7 // width of a letter of 11 pixels
	margin     = 16
	cardWidth  = 186
	cardGap    = 8
	perRow     = 6
	titleLine  = 30
	laneHead   = 40
	textLine   = 15
	laneGap    = 10
	pictureTop = 16
)

const (
	cardLetters = (cardWidth - 2*cardGap) * 10 / 67 // that one line of a card holds

	laneWidth = perRow*(cardWidth+cardGap) - cardGap + 2*margin
	hostWidth = laneWidth + 2*margin
)

// colours of lanes: of a network the same on every host.
var colours = []string{"#2f6fb5", "#b5562f", "#3d8b57", "#8450a8", "#a8892d", "#2d8f9c", "#b0416f", "#64748b"}

// drawing is a picture under way.
type drawing struct {
	strings.Builder
	colour map[string]string
}

// Picture is an SVG of its own: styles are inside, fonts are the reader's.
func Picture(hosts []Host) string {
	d := &drawing{colour: map[string]string{}}
	for _, h := range hosts {
		for _, n := range h.Networks {
			if d.colour[n.Name] == "" {
				d.colour[n.Name] = colours[len(d.colour)%len(colours)]
			}
		}
	}
	y := pictureTop
	for _, h := range hosts {
		y = d.host(h, y) + margin
	}
	width := hostWidth + 2*margin
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="networks and containers">`+"\n<style>%s</style>\n"+
		`<rect class="page" width="%d" height="%d"/>`+"\n", width, y, width, y, style, width, y)
	return head + d.String() + "</svg>\n"
}

const style = `
.page{fill:#fff}.host{fill:#f6f7f9;stroke:#c3c9d2}.card{fill:#fff;stroke:#d5dae1}
text{font:11px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#1f2733}
.big{font-size:15px;font-weight:bold}.name{font-weight:bold}.soft{fill:#5b6675}.port{fill:#0b6b3a}.bad{fill:#b3261e}
.badcard{fill:#fdecea;stroke:#b3261e}.bar{fill:#dfe4ea}
@media (prefers-color-scheme:dark){.page{fill:#14181e}.host{fill:#1b2129;stroke:#39424e}.card{fill:#232b35;stroke:#39424e}text{fill:#e3e8ef}.soft{fill:#9aa6b5}.port{fill:#62c48f}.bad{fill:#ff8a80}.badcard{fill:#3a1f1f;stroke:#ff8a80}.bar{fill:#333c48}}
`

func (d *drawing) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(d, format, args...) // a Builder takes all
}

// text writes one line that has room for so many pixels.
func (d *drawing) text(x, y int, class, s string, room int) {
	fits := max(int(float64(room)/letter), 1)
	if class == "big" {
		fits = int(float64(room) / (letter * 15 / 11))
	}
	d.printf(`<text x="%d" y="%d" class="%s">%s</text>`+"\n", x, y, class, escape(shorten(s, fits)))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}

// host draws a host, and returns where it ends.
func (d *drawing) host(h Host, y int) int {
	heights, end := []int{}, y+titleLine+margin
	for _, n := range h.Networks {
		heights = append(heights, n.height())
		end += n.height() + laneGap
	}
	if len(h.Networks) == 0 {
		end += textLine
	}
	d.printf(`<rect class="host" x="%d" y="%d" width="%d" height="%d" rx="8"/>`+"\n", margin, y, hostWidth, end-y)
	d.text(2*margin, y+22, "big", h.Host, hostWidth/2)
	containers := map[string]bool{}
	for _, n := range h.Networks {
		for _, c := range n.Containers {
			containers[c.ID] = true
		}
	}
	d.text(margin+hostWidth/2+margin, y+22, "soft", fmt.Sprintf("%d networks, %d containers", len(h.Networks), len(containers)), hostWidth/2-2*margin)
	at := y + titleLine + margin/2
	for i, n := range h.Networks {
		d.lane(n, at, heights[i])
		at += heights[i] + laneGap
	}
	if len(h.Networks) == 0 {
		d.text(2*margin, at+textLine, "soft", "no network", hostWidth-2*margin)
	}
	return end
}

// rows are cards side by side; each row is as high as its highest card.
func (n Network) rows() [][]Container { return slices.Collect(slices.Chunk(n.Containers, perRow)) }

func rowHeight(row []Container) int {
	lines := 0
	for _, c := range row {
		lines = max(lines, len(c.lines()))
	}
	return lines*textLine + 2*cardGap
}

func (n Network) height() int {
	height := laneHead
	if n.Problem != "" {
		height += textLine
	}
	for _, row := range n.rows() {
		height += rowHeight(row) + cardGap
	}
	if len(n.Containers) == 0 {
		height += textLine
	}
	return height + cardGap
}

// lane draws a network on a host.
func (d *drawing) lane(n Network, y, height int) {
	const x = 2 * margin
	colour := d.colour[n.Name]
	d.printf(`<g class="lane"><title>%s</title>`+"\n", escape(n.Name+"  "+strings.Join(n.Subnets, ", ")))
	d.printf(`<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="%s" fill-opacity="0.10" stroke="%s"/>`+"\n", x, y, laneWidth, height, colour, colour)
	d.printf(`<rect x="%d" y="%d" width="6" height="%d" rx="3" fill="%s"/>`+"\n", x, y, height, colour)
	const nameRoom, barRoom = 240, 260
	d.text(x+margin, y+20, "name", n.Name, nameRoom)
	words := []string{n.Driver}
	if n.Internal {
		words = append(words, "internal")
	}
	words = append(append(words, n.Bridge), n.Subnets...)
	if len(n.Peers) > 0 {
		words = append(words, fmt.Sprintf("spans %d more hosts", len(n.Peers)))
	}
	d.text(x+margin+nameRoom+margin, y+20, "soft", strings.Join(words, " · "), laneWidth-nameRoom-barRoom-4*margin)
	if n.Capacity > 0 {
		const bar = 90
		at := x + laneWidth - barRoom
		used := int(float64(n.Held) / float64(n.Capacity) * bar)
		if n.Held > 0 {
			used = min(max(used, 3), bar)
		}
		d.printf(`<rect class="bar" x="%d" y="%d" width="%d" height="8" rx="4"/><rect x="%d" y="%d" width="%d" height="8" rx="4" fill="%s"/>`+"\n", at, y+12, bar, at, y+12, used, colour)
		d.text(at+bar+cardGap, y+20, "soft", count(n.Held)+" of "+count(n.Capacity), barRoom-bar-2*cardGap)
	}
	at := y + laneHead - cardGap
	if n.Problem != "" {
		d.text(x+margin, at+8, "bad", "✗ "+n.Problem, laneWidth-2*margin)
		at += textLine
	}
	if len(n.Containers) == 0 {
		d.text(x+margin, at+textLine-2, "soft", "no container", laneWidth-2*margin)
	}
	for _, row := range n.rows() {
		for i, c := range row {
			d.card(c, x+margin+i*(cardWidth+cardGap), at, rowHeight(row))
		}
		at += rowHeight(row) + cardGap
	}
	d.WriteString("</g>\n")
}

// cardLine is a line of a card.
type cardLine struct{ class, text string }

func (c Container) lines() []cardLine {
	all := []cardLine{{"name", c.label()}}
	for i, a := range c.Addresses {
		if i == 0 {
			a = c.Interface + " " + a
		}
		all = append(all, cardLine{"soft", a})
	}
	if len(c.Addresses) == 0 {
		all = append(all, cardLine{"soft", c.Interface})
	}
	const most = 3
	for i, p := range c.Ports {
		if i == most && len(c.Ports) > most+1 {
			all = append(all, cardLine{"port", fmt.Sprintf("and %d ports more", len(c.Ports)-most)})
			break
		}
		all = append(all, cardLine{"port", strings.ReplaceAll(p, " ", "")})
	}
	if c.Problem != "" {
		for _, line := range wrap("✗ "+c.Problem, cardLetters, 3) {
			all = append(all, cardLine{"bad", line})
		}
	}
	return all
}

// wrap breaks a text at its blanks into lines of so many letters. Of more lines than most the
// last one is cut.
func wrap(text string, letters, most int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > letters {
			lines, line = append(lines, line), word
			continue
		}
		line = strings.TrimSpace(line + " " + word)
	}
	if lines = append(lines, line); len(lines) > most {
		last := []rune(lines[most-1] + " " + lines[most])
		lines = append(lines[:most-1], string(last[:min(len(last), letters-1)])+"…")
	}
	return lines
}

func (c Container) title() string {
	parts := append([]string{c.ID}, c.Addresses...)
	parts = append(parts, c.Ports...)
	if c.Name != "" {
		parts = append([]string{c.Name}, parts...)
	}
	if c.Problem != "" {
		parts = append(parts, c.Problem)
	}
	return strings.Join(parts, "\n")
}

func (d *drawing) card(c Container, x, y, height int) {
	class := "card"
	if c.Problem != "" {
		class += " badcard"
	}
	d.printf(`<g class="container" data-text="%s"><title>%s</title><rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="4"/>`+"\n",
		escape(strings.ToLower(c.title())), escape(c.title()), class, x, y, cardWidth, height)
	for i, l := range c.lines() {
		d.text(x+cardGap, y+cardGap+11+i*textLine, l.class, l.text, cardWidth-2*cardGap)
	}
	d.WriteString("</g>\n")
}
