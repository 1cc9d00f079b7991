package live

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/firewall/conntrack"
	"github.com/libnet-cni/libnet/internal/state"
)

// traffic is what a container sends and receives by an attachment, a second.
type traffic struct {
	Network   string `json:"network"`
	Container string `json:"container"`
	Interface string `json:"interface"`
	// Sent and Received are bytes a second, Packets of both directions.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	Packets  uint64 `json:"packets"`
	// Dropped are packets that the host's end could not deliver, since it was made.
	Dropped uint64 `json:"dropped"`
	// Flows are connections that conntrack knows of.
	Flows int `json:"flows"`
}

// TopCommand is "lnctl top".
func TopCommand(h Host) *cobra.Command {
	var interval time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "top [NETWORK]",
		Short: "Show what containers send and receive, and how many connections they have",
		Long: "Show what the containers of NETWORK, or all, send and receive in a second, by the counters of the host's ends of their links,\n" +
			"and how many connections conntrack knows of each. On a terminal it is shown anew until it is interrupted, otherwise once.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return console.Usage("want one network or none, got %d", len(args))
			}
			if interval < 10*time.Millisecond {
				return console.Usage("--interval %s: want 10ms or more", interval)
			}
			return nil
		},
		ValidArgsFunction: h.Networks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := h.Permitted(); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			again := !once && isTerminal(out) && (h.Format == console.Table || h.Format == console.Wide)
			for {
				all, err := h.measure(cmd.Context(), strings.Join(args, ""), interval)
				if err != nil {
					return err
				}
				if again {
					_, err = io.WriteString(out, "\x1b[H\x1b[2J")
				}
				err = errors.Join(err, h.Print(out, all, func(out io.Writer) error { return writeTraffic(out, all) }))
				if err != nil || !again {
					return err
				}
			}
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how long is measured")
	cmd.Flags().BoolVar(&once, "once", false, "on a terminal, too, show it once")
	return cmd
}

func isTerminal(out io.Writer) bool {
	file, is := out.(*os.File)
	if !is {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// measure looks twice. Those with the most traffic come first.
func (h Host) measure(ctx context.Context, network string, interval time.Duration) ([]traffic, error) {
	before, err := readCounters()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(interval):
	}
	after, err := readCounters()
	took := time.Since(start)
	records, recErr := h.Records()
	table := conntrack.New(nil)
	flows, flowErr := table.Count(ctx)
	if err := errors.Join(err, recErr, flowErr, table.Close()); err != nil {
		return nil, err
	}
	all := []traffic{}
	for _, r := range records {
		now, there := after[r.HostName]
		if r.Phase != state.PhaseReady || network != "" && r.Network != network || !there {
			continue
		}
		all = append(all, trafficOf(r, before[r.HostName], now, took, flows))
	}
	slices.SortStableFunc(all, func(a, b traffic) int {
		return cmp.Or(cmp.Compare(b.Sent+b.Received, a.Sent+a.Received), cmp.Compare(b.Flows, a.Flows))
	})
	return all, nil
}

func trafficOf(r state.Endpoint, before, now counters, took time.Duration, flows map[netip.Addr]int) traffic {
	rate := func(a, b uint64) uint64 {
		if b < a { // the link is another one than before
			a = 0
		}
		return uint64(float64(b-a) / took.Seconds())
	}
	t := traffic{
		Network: r.Network, Container: r.ContainerID, Interface: r.Inside(),
		// The host's end receives what the container sends.
		Sent: rate(before.rxBytes, now.rxBytes), Received: rate(before.txBytes, now.txBytes),
		Packets: rate(before.rxPackets+before.txPackets, now.rxPackets+now.txPackets), Dropped: now.dropped,
	}
	for _, a := range r.Addrs() {
		t.Flows += flows[a]
	}
	return t
}

// counters are those of a link.
type counters struct{ rxBytes, rxPackets, txBytes, txPackets, dropped uint64 }

// readCounters reads those of all links of the network namespace.
func readCounters() (map[string]counters, error) {
	data, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	all := map[string]counters{}
	for line := range bytes.Lines(data) {
		name, rest, is := strings.Cut(string(line), ":")
		words := strings.Fields(rest)
		if !is || len(words) < 16 {
			continue
		}
		var n [16]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(words[i], 10, 64); err != nil {
				return nil, fmt.Errorf("/proc/net/dev: %w", err)
			}
		}
		all[strings.TrimSpace(name)] = counters{rxBytes: n[0], rxPackets: n[1], txBytes: n[8], txPackets: n[9], dropped: n[3] + n[11]}
	}
	return all, nil
}

func writeTraffic(out io.Writer, all []traffic) error {
	var rows [][]string
	for _, t := range all {
		rows = append(rows, []string{
			t.Network, t.Container, t.Interface, bytesText(t.Sent) + "/s", bytesText(t.Received) + "/s", fmt.Sprint(t.Packets),
			fmt.Sprint(t.Flows), fmt.Sprint(t.Dropped),
		})
	}
	return console.WriteTable(out, []string{"NETWORK", "CONTAINER", "INTERFACE", "SENT", "RECEIVED", "PACKETS/S", "FLOWS", "DROPPED"}, rows)
}

// bytesText is "1.2 MB".
func bytesText(n uint64) string {
	value, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
