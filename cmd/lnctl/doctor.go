package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/operator"
)

// finding is a line of doctor.
type finding struct {
	About  string `json:"about"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func doctorCommand(s *settings) *cobra.Command {
	var binDir string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps networks from working, and say what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := errors.Join(directory("--conf-dir", s.confDir, cmd.Flags().Changed("conf-dir")), directory("--bin-dir", binDir, cmd.Flags().Changed("bin-dir")))
			if err != nil {
				return err
			}
			return s.with(func(c *operator.Operator) error {
				all, bad := s.diagnose(cmd.Context(), c, binDir)
				err := s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeFindings(out, all) })
				if bad > 0 {
					err = errors.Join(err, fmt.Errorf("%d of %d checks failed", bad, len(all)))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&s.confDir, "conf-dir", defaultConfDir, "where the runtime's configurations of networks are")
	cmd.Flags().StringVar(&binDir, "bin-dir", "", "where the runtime's plugins are (default "+strings.Join(defaultBinDirs, ", ")+")")
	return cmd
}

// diagnose returns what doctor finds, and how much of it is bad.
func (s *settings) diagnose(ctx context.Context, c *operator.Operator, binDir string) (all []finding, bad int) {
	for _, f := range c.Diagnose(ctx) {
		all = append(all, finding{f.About, f.Advice == "", f.Found, f.Advice})
	}
	here := installationOf(s.confDir, binDir)
	all = append(append(all, overlayFindings(ctx, c)...), here.findings(ctx)...)
	for _, f := range all {
		if !f.OK {
			bad++
		}
	}
	return all, bad
}

func writeFindings(out io.Writer, all []finding) error {
	var errs []error
	for _, f := range all {
		mark := console.Paint(out, console.Green, "✓")
		if !f.OK {
			mark = console.Paint(out, console.Red, "✗")
		}
		_, err := fmt.Fprintf(out, "%s %-17s %s\n", mark, f.About, f.Found)
		errs = append(errs, err)
		if !f.OK {
			_, err := fmt.Fprintf(out, "  %-17s → %s\n", "", f.Advice)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// doctorWait is how long doctor waits for the hosts of a network, and as long
// again where some are silent.
const doctorWait = 500 * time.Millisecond

// overlayFindings asks the hosts of networks that span hosts, through the tunnel,
// whether as large packets as it takes arrive: with hosts of different MTU the
// one that has the larger one loses them without a word. A host that is silent
// is nothing to find here: its network may not be there yet.
func overlayFindings(ctx context.Context, c *operator.Operator) []finding {
	networks, _ := c.SpanningNetworks(ctx) // what cannot be read other findings tell
	var all []finding
	for _, n := range networks {
		peers, err := c.CheckPeers(ctx, n, doctorWait)
		if err != nil || peers.MTU == 0 {
			continue
		}
		f := finding{About: "overlay MTU", OK: true, Found: fmt.Sprintf("%s: no host is known to take less than %d bytes", n.Name(), peers.MTU)}
		for _, p := range peers.Peers {
			if largest, small := smallest(p); small {
				f = finding{About: f.About, Found: fmt.Sprintf("%s: of the tunnel's %d bytes %d reach %s", n.Name(), peers.MTU, largest, p.Address), Advice: strings.Join(p.Advice, "; ")}
				break
			}
		}
		all = append(all, f)
	}
	return all
}

// smallest returns the largest packet that comes back from a peer by the way
// that takes least; false if all take full ones, or nothing is known.
func smallest(p operator.Peer) (bytes int, small bool) {
	for _, w := range p.Ways {
		if w.Largest > 0 && (!small || w.Largest < bytes) {
			bytes, small = w.Largest, true
		}
	}
	return bytes, small
}
