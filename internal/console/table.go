package console

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// WriteTable writes rows of cells in columns, the head first.
func WriteTable(out io.Writer, head []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var errs []error
	for _, row := range append([][]string{head}, rows...) {
		_, err := fmt.Fprintln(w, strings.Join(row, "\t"))
		errs = append(errs, err)
	}
	return errors.Join(append(errs, w.Flush())...)
}

// OrDash stands in a cell that would be empty.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Colour is one of a terminal (ECMA-48, SGR).
type Colour int

// The colours of findings.
const (
	Red    Colour = 31
	Green  Colour = 32
	Yellow Colour = 33
)

// Paint gives text a colour if out is a terminal and NO_COLOR (https://no-color.org) is not
// set.
func Paint(out io.Writer, c Colour, text string) string {
	file, is := out.(*os.File)
	if !is || os.Getenv("NO_COLOR") != "" {
		return text
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

// Bar draws how much of a whole is used, as "▇▇▁▁▁▁▁▁": empty only if nothing is used, full
// only if all is.
func Bar(used, whole uint64) string {
	const width = 8
	n := 0
	switch {
	case whole == 0 || used == 0:
	case used >= whole:
		n = width
	default:
		n = min(max(int(float64(used)/float64(whole)*width), 1), width-1)
	}
	return strings.Repeat("▇", n) + strings.Repeat("▁", width-n)
}

// Where is "10.32.0.2:80", "[fd32::2]:80-89", and of no address "80"; last 0: it is one port.
func Where(ip netip.Addr, first, last int) string {
	s := strconv.Itoa(first)
	if ip.IsValid() {
		s = net.JoinHostPort(ip.String(), s)
	}
	if last <= first {
		return s
	}
	return fmt.Sprintf("%s-%d", s, last)
}
