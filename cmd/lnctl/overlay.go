package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

func overlayCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "overlay",
		Short: "Look at the other hosts of networks that span hosts, and make and change keys for them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(overlayPeersCommand(s), overlayCheckCommand(s), overlayKeygenCommand(), overlayPubkeyCommand(), overlayRotateCommand(s),
		overlayEvictCommand(s), overlayAdmitCommand(s))
	return cmd
}

func overlayPeersCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:               "peers [NETWORK]",
		Short:             "List the hosts, and whether the kernel has what leads to each",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			look := func(c *operator.Operator, n *engine.Network) (operator.Peers, error) {
				return c.Peers(cmd.Context(), n)
			}
			return s.overlay(cmd, args, look, peersHead)
		},
	}
}

func overlayCheckCommand(s *settings) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:               "check [NETWORK]",
		Short:             "Ask each host through the tunnel, and say what to do where none answers",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait <= 0 {
				return usageError{fmt.Errorf("--wait %s: want more than nothing", wait)}
			}
			look := func(c *operator.Operator, n *engine.Network) (operator.Peers, error) {
				return c.CheckPeers(cmd.Context(), n, wait)
			}
			return s.overlay(cmd, args, look, checkHead)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Second, "how long to wait for answers; as long again where some are missing")
	return cmd
}

func networkOrAll(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("want the name of one network or none for all, got %d; lnctl network ls lists them", len(args))}
	}
	return nil
}

// overlay looks at one network, or at all that span hosts, and prints the
// columns of head.
func (s *settings) overlay(cmd *cobra.Command, args []string, look func(*operator.Operator, *engine.Network) (operator.Peers, error), head []string) error {
	return s.with(func(c *operator.Operator) error {
		networks, err := spanning(cmd.Context(), c, args)
		if err != nil && len(networks) == 0 {
			return err // there is no answer, so no table
		}
		errs := []error{err}
		all := []overlayNetwork{}
		total, bad := 0, 0
		for _, n := range networks {
			found, err := look(c, n)
			if err != nil {
				errs = append(errs, fmt.Errorf("network %q: %w", n.Name(), err))
				continue
			}
			o := overlayOf(n, found)
			all = append(all, o)
			total, bad = total+len(o.Peers), bad+o.bad()
		}
		errs = append(errs, s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeOverlays(out, all, head) }))
		if bad > 0 {
			errs = append(errs, fmt.Errorf("%d of %d peers are not healthy", bad, total))
		}
		return errors.Join(errs...)
	})
}

// spanning returns the network that is asked for, or all that span hosts.
func spanning(ctx context.Context, c *operator.Operator, args []string) ([]*engine.Network, error) {
	if len(args) == 1 {
		n, err := c.SpanningNetwork(args[0])
		if errors.Is(err, operator.ErrNoOverlay) {
			return nil, fmt.Errorf("network %q does not span hosts: it is not of overlay-ln", args[0])
		}
		if err != nil {
			return nil, err
		}
		return []*engine.Network{n}, nil
	}
	return c.SpanningNetworks(ctx)
}
