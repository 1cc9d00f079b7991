package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/cmd/lnctl/find"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/nftrace"
	"github.com/libnet-cni/libnet/internal/state"
)

// Found is what became of a packet.
type Found struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Steps  []Step `json:"steps"`
	Answer string `json:"answer,omitempty"` // to our packet
	// Arrived says that an answer came, or that the packet of another host was let through.
	Arrived bool   `json:"arrived"`
	Says    string `json:"says"` // in a sentence
}

// Step is what one rule did to it.
type Step struct {
	// Container is the ID of that in whose network namespace it was; empty: in the host's.
	Container string `json:"container,omitempty"`
	Hook      string `json:"hook"`
	Table     string `json:"table"` // with its family
	Chain     string `json:"chain"`
	Rule      string `json:"rule,omitempty"` // its text, or else its comment
	Verdict   string `json:"verdict"`
	In        string `json:"in,omitempty"`
	Out       string `json:"out,omitempty"`
	Source    string `json:"source,omitempty"`
	Dest      string `json:"destination,omitempty"`
}

// probe is a packet to be sent, or to be waited for.
type probe struct {
	from, to string
	ns       *netns.Namespace // of the sender; nil: another host sends it
	source   netip.Addr
	dest     netip.AddrPort // port 0: an echo
	protocol string
	wait     time.Duration
	size     int // bytes; 0: as small as it can be
	bridges  bridges
	records  []state.Endpoint
	sender   []state.Endpoint // attachments of the container that sends; none: no container of this host does
}

// Records returns the attachments of this host, in the order of their containers.
type Records func() ([]state.Endpoint, error)

// Service says why the rules of services refuse what is for an address and port of a protocol, as
// "tcp"; empty: they have nothing for it.
type Service func(ctx context.Context, protocol string, dest netip.AddrPort) string

// Command is "lnctl trace". Complete completes both arguments.
func Command(o *console.Output, all Records, why Service, complete cobra.CompletionFunc) *cobra.Command {
	var wait time.Duration
	var size uint16
	cmd := &cobra.Command{
		Use:   "trace FROM TO[:PORT[/PROTOCOL]]",
		Short: "Follow a packet through the rules of all programs, and say what drops it",
		Long: "Send a packet and follow it through the rules of nf_tables, of all programs. FROM is a container, by its ID or the\n" +
			"beginning of it, or \"host\"; or the address of another host: then nothing is sent, and its next packet is followed.\n" +
			"TO is a container or an address. With a port it is a connection of TCP, with /udp a datagram, without one an echo\n" +
			"(ping). The exit status is 1 if the packet does not arrive. It needs Linux 5.12. The packet is followed into the\n" +
			"containers at both ends; what no rule dropped, the kernel is asked about. Rules of iptables-legacy are not shown.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return console.Usage("want FROM and TO, as: lnctl trace c1 192.0.2.1:80")
			}
			return nil
		},
		ValidArgsFunction: complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			records, err := all()
			if err != nil {
				return err
			}
			p, err := newProbe(records, args[0], args[1], wait)
			if err == nil {
				err = p.resize(int(size))
			}
			if err != nil {
				return err
			}
			found, err := p.trace(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if last := len(found.Steps) - 1; !found.Arrived && last >= 0 && strings.HasSuffix(found.Steps[last].Table, " libnet-services") {
				if says := why(cmd.Context(), p.protocol, p.dest); says != "" {
					found.Says = "refused: " + says
				}
			}
			err = o.Print(cmd.OutOrStdout(), found, found.write)
			if !found.Arrived {
				err = errors.Join(err, errors.New("the packet did not arrive"))
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 3*time.Second, "how long to wait for an answer, or for the packet of another host")
	cmd.Flags().Uint16Var(&size, "size", 0, "bytes of the echo or datagram with its headers, which is not to be fragmented; 0: as small as it can be")
	return cmd
}

// resize sets how large the packet is; 0: as it is.
func (p *probe) resize(size int) error {
	switch {
	case size == 0:
		return nil
	case p.ns == nil || p.protocol == "tcp":
		return console.Usage("--size %d: only an echo or a datagram that is sent from here has a size", size)
	case size < p.smallest():
		return console.Usage("--size %d: want at least %d", size, p.smallest())
	}
	p.size = size
	return nil
}

func newProbe(records []state.Endpoint, from, to string, wait time.Duration) (p probe, err error) {
	p = probe{from: from, to: to, wait: wait, protocol: "icmp", bridges: bridgesOf(records), records: records}
	dest, protocol, given := strings.Cut(to, "/")
	if host, port, err := net.SplitHostPort(dest); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return p, console.Usage("%q: want a port from 1 to 65535", to)
		}
		dest, p.protocol, p.dest = host, "tcp", netip.AddrPortFrom(netip.Addr{}, uint16(n))
	}
	if given && (protocol != "tcp" && protocol != "udp" || p.protocol == "icmp") {
		return p, console.Usage("%q: want /tcp or /udp after a port", to)
	}
	if given {
		p.protocol = protocol
	}
	addr, err := netip.ParseAddr(strings.Trim(dest, "[]"))
	if err != nil {
		of, err := container(records, dest)
		if err != nil {
			return p, err
		}
		i := slices.IndexFunc(of, func(r state.Endpoint) bool { return len(r.Addresses) > 0 })
		if i < 0 {
			return p, fmt.Errorf("container %s has no address", of[0].ContainerID)
		}
		addr = of[i].Addresses[0].Prefix.Addr()
	}
	p.dest = netip.AddrPortFrom(addr.Unmap(), p.dest.Port())
	return p, p.findSource(records)
}

// findSource finds the namespace that sends, and the address that the kernel chooses there.
func (p *probe) findSource(records []state.Endpoint) (err error) {
	if a, notAddr := netip.ParseAddr(p.from); notAddr == nil {
		p.source = a.Unmap()
		if p.source.Is6() != p.dest.Addr().Is6() {
			return console.Usage("%s and %s are of two address families", p.source, p.dest.Addr())
		}
		return nil
	}
	if p.from == "host" {
		p.ns, err = netns.Current()
	} else {
		of, findErr := container(records, p.from)
		if findErr != nil {
			return findErr
		}
		p.sender = of
		p.ns, err = netns.Open(of[0].Netns)
	}
	if err != nil {
		return err
	}
	return p.ns.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(p.dest.Addr(), 9).String()) // which sends nothing
		if err != nil {
			return fmt.Errorf("%s has no way to %s: %w: %s", p.from, p.dest.Addr(), errors.Unwrap(err), p.noWay(err))
		}
		p.source = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		return c.Close()
	})
}

// container is find.Container, for what may have been meant as an address.
func container(records []state.Endpoint, id string) ([]state.Endpoint, error) {
	of, err := find.Container(records, id)
	if err != nil {
		return nil, fmt.Errorf("no address: %w", err)
	}
	return of, nil
}

func stepOf(ctx context.Context, s nftrace.Step, texts rules) Step {
	out := Step{Hook: s.Hook, Table: strings.TrimSpace(s.Family + " " + s.Table), Chain: s.Chain, Verdict: s.Verdict, In: s.In, Out: s.Out}
	if s.Handle != 0 {
		out.Rule = texts.text(ctx, s)
	}
	if s.From.Addr().IsValid() {
		out.Source, out.Dest = endpoint(s.From), endpoint(s.To)
	}
	return out
}

// endpoint is an address, with its port if it has one.
func endpoint(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// rules are texts of rules, by chain and handle, as nft prints them.
type rules map[string]map[string]string

// text is that of a step's rule: as nft prints it, or else its comment or number.
func (r rules) text(ctx context.Context, s nftrace.Step) string {
	chain := s.Family + " " + s.Table + " " + s.Chain
	if r[chain] == nil {
		r[chain] = map[string]string{}
		listed, _ := exec.CommandContext(ctx, "nft", "-a", "list", "chain", s.Family, s.Table, s.Chain).Output() // without nft there is the comment
		for line := range strings.Lines(string(listed)) {
			if rule, handle, is := strings.Cut(strings.TrimSpace(line), " # handle "); is {
				r[chain][handle] = rule
			}
		}
	}
	handle := strconv.FormatUint(s.Handle, 10)
	if text := r[chain][handle]; text != "" {
		return text
	}
	if s.Comment != "" {
		return strconv.Quote(s.Comment)
	}
	return "handle " + handle
}

func (f Found) write(out io.Writer) error {
	var rows [][]string
	hook := ""
	for _, s := range f.Steps {
		at, now := "", s.Hook
		if s.Container != "" {
			now += " in " + s.Container
		}
		if now != hook {
			at, hook = now, now
		}
		way := ""
		if s.Source != "" {
			way = s.Source + " → " + s.Dest
		}
		rows = append(rows, []string{at, s.Table, s.Chain, s.Verdict, console.OrDash(way), console.OrDash(s.Rule)})
	}
	var errs []error
	if len(rows) > 0 {
		errs = append(errs, console.WriteTable(out, []string{"HOOK", "TABLE", "CHAIN", "VERDICT", "PACKET", "RULE"}, rows))
	}
	mark := console.Paint(out, console.Red, "✗")
	if f.Arrived {
		mark = console.Paint(out, console.Green, "✓")
	}
	_, err := fmt.Fprintf(out, "%s %s\n", mark, f.Says)
	return errors.Join(append(errs, err)...)
}
