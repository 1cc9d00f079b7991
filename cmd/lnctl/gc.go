package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/operator"
)

// removed is something dead that gc removed, or would.
type removed struct {
	Network   string `json:"network"`
	Container string `json:"container"`
	Interface string `json:"interface"`
	By        string `json:"by"`
	Why       string `json:"why"`
}

func gcCommand(s *settings) *cobra.Command {
	var look bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what provably dead containers left",
		Long: "Remove the attachments, addresses and published ports whose container is provably gone: it is of an\n" +
			"earlier boot, or its network namespace is no more. Attachments in doubt stay, and so do networks.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *operator.Operator) error {
				g := sweep{c: c, look: look, found: []removed{}}
				err := g.all(cmd.Context())
				return errors.Join(s.print(cmd.OutOrStdout(), g.found, g.write), err)
			})
		},
	}
	cmd.Flags().BoolVar(&look, "dry-run", false, "only say what would be removed")
	return cmd
}

// sweep goes through all that is dead.
type sweep struct {
	c     *operator.Operator
	look  bool // and remove nothing
	found []removed
}

func (g *sweep) all(ctx context.Context) error {
	networks, err := g.c.Networks(ctx)
	errs := []error{err}
	for _, n := range networks {
		errs = append(errs, g.network(ctx, n))
	}
	published, err := g.c.Publications(ctx)
	errs = append(errs, err)
	var names []string
	for _, a := range published {
		names = append(names, a.ID.Network)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		p, err := g.c.Publisher(name, model.PublishConfig{})
		if err == nil {
			err = p.Collect(ctx, g.keep(byPublisher))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (g *sweep) network(ctx context.Context, n *engine.Network) error {
	keep := g.keep(byNetwork)
	if !g.look {
		return n.Collect(ctx, keep, engine.KeepNetwork)
	}
	all, err := n.Holders(ctx)
	for _, h := range all {
		keep(h)
	}
	return err
}

// keep notes what is dead. To look only, all is kept.
func (g *sweep) keep(by string) func(life.Holder) bool {
	return func(h life.Holder) bool {
		why := g.c.WhyDead(h)
		if abandoned, err := g.c.Abandoned(h.ID); abandoned && err == nil && why == "" {
			why = "lnctl connect made it, and the container has left the networks of its runtime"
		}
		if why == "" {
			return true
		}
		r := removed{h.ID.Network, h.ID.ContainerID, h.ID.IfName, by, why}
		if !slices.Contains(g.found, r) { // a record and its lease are one
			g.found = append(g.found, r)
		}
		return g.look
	}
}

func (g *sweep) write(out io.Writer) error {
	what := "removed"
	if g.look {
		what = "would be removed"
	}
	if len(g.found) == 0 {
		_, err := fmt.Fprintln(out, "nothing is dead")
		return err
	}
	var rows [][]string
	for _, r := range g.found {
		rows = append(rows, []string{r.Network, r.Container, r.Interface, r.By, r.Why})
	}
	err := table(out, []string{"NETWORK", "CONTAINER", "INTERFACE", "BY", "WHY"}, rows)
	_, lineErr := fmt.Fprintf(out, "%d %s\n", len(g.found), what)
	return errors.Join(err, lineErr)
}
