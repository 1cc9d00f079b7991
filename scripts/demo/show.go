package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Colours, as terminals number them (SGR).
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

// printer writes the story, coloured on a terminal unless NO_COLOR is set
// (no-color.org).
type printer struct {
	w      io.Writer
	colour bool
}

func newPrinter(w io.Writer) *printer {
	p := &printer{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.colour = err == nil
	}
	return p
}

func (p *printer) printf(format string, args ...any) { _, _ = fmt.Fprintf(p.w, format, args...) }

func (p *printer) paint(colour, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// head starts a chapter.
func (p *printer) head(title, about string) {
	p.printf("\n%s%s %s\n", p.paint(bold, title), strings.Repeat(" ", 7-len(title)), about)
}

// step is one thing that was done, and how it ended.
func (p *printer) step(colour, mark, format string, args ...any) {
	p.printf("  %s %s\n", p.paint(colour, mark), fmt.Sprintf(format, args...))
}

// ok is a step that went well in the time took.
func (p *printer) ok(took time.Duration, what string) {
	p.step(green, "✓", "%-62s%s", what, p.paint(faint, fmt.Sprintf("%7.2f ms", took.Seconds()*1e3)))
}

// row is a fact below a step.
func (p *printer) row(name, format string, args ...any) {
	p.printf("    %-9s %s\n", name, fmt.Sprintf(format, args...))
}

// container tells what the current namespace has beside lo.
func (p *printer) container() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	a := eth0.Attrs()
	p.row("eth0", "%s, MTU %d, MAC %s", addrsOf(eth0), a.MTU, a.HardwareAddr)
	routes, err := netlink.RouteList(eth0, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Gw != nil { // the others follow from the addresses
			p.row("route", "%s via %s", r.Dst, r.Gw)
		}
	}
	return nil
}

// bridges tells what links the plugins made on the host.
func (p *printer) bridges() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, br := range links {
		if br.Type() != "bridge" {
			continue
		}
		p.row("bridge", "%s, the gateway: %s, MTU %d", br.Attrs().Name, addrsOf(br), br.Attrs().MTU)
		for _, port := range links {
			if a := port.Attrs(); a.MasterIndex == br.Attrs().Index {
				p.row("port", "%-35s %s", a.Name, p.paint(faint, a.Alias))
			}
		}
	}
	return nil
}

// masquerade tells the elements of our nftables sets that pair an address and
// its bridge.
func (p *printer) masquerade() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	p.row("nftables", "table inet libnet: a few fixed rules, and set elements per address")
	for _, name := range []string{"home4", "home6"} {
		table := &nftables.Table{Name: "libnet", Family: nftables.TableFamilyINet}
		elems, err := c.GetSetElements(&nftables.Set{Table: table, Name: name})
		if err != nil {
			return fmt.Errorf("nftables set %s: %w", name, err)
		}
		slices.SortFunc(elems, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
		for _, e := range elems {
			ip, bridge := e.Key[:len(e.Key)-unix.IFNAMSIZ], e.Key[len(e.Key)-unix.IFNAMSIZ:]
			a, _ := netip.AddrFromSlice(ip)
			what := fmt.Sprintf("masqueraded beyond %s", bytes.TrimRight(bridge, "\x00"))
			p.row("", "%-9s %-25s %s", a, what, p.paint(faint, e.Comment))
		}
	}
	return nil
}

// addrsOf returns a link's addresses, but what the kernel adds itself.
func addrsOf(l netlink.Link) string {
	addrs, _ := netlink.AddrList(l, netlink.FAMILY_ALL)
	var all []string
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			all = append(all, a.IPNet.String())
		}
	}
	return strings.Join(all, " ")
}
