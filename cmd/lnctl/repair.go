package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/operator"
)

// repaired is what repair did.
type repaired struct {
	Rebuilt []rebuilt `json:"rebuilt"`
	// Looked counts the attachments and publications whose rules were compared,
	// Restored are those whose rules were put back.
	Looked   int       `json:"looked"`
	Restored []rebuilt `json:"restored"`
	// Rewritten: the rules themselves were missing, changed, or of another release.
	Rewritten bool      `json:"rewritten"`
	Bridges   []string  `json:"bridges"`
	Tunnels   []string  `json:"tunnels"`
	Plugged   []rebuilt `json:"plugged"`
	// Named are attachments whose names the kernel answers for again, StrayNames those that
	// it has forgotten, as no record explains them.
	Named      []rebuilt `json:"named"`
	StrayNames []string  `json:"strayNames"`
	// Services is what of services was not as their records say, in words.
	Services []string `json:"services"`
	// Removed are elements of libnet's sets that no record explains.
	Removed []string `json:"removed"`
	Failed  []string `json:"failed"`
}

// rebuilt is an attachment, or a container with published ports, whose record
// or lease was lost.
type rebuilt struct {
	Network   string `json:"network"`
	Container string `json:"container"`
	Interface string `json:"interface"`
}

func repairCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Put back lost records, leases, firewall rules, bridges and tunnels",
		Long: "Write the records and address leases that are lost, by what the kernel still tells of running containers, and,\n" +
			"where no rules tell of a network, by its configuration. Then put back, by the records: the firewall rules of every\n" +
			"attachment and published port, and bridges and tunnels that are gone, with their addresses and the containers' links.\n" +
			"Parts in place stay untouched. Links and addresses of containers are not remade. The exit status is 1 if something\n" +
			"could not be put back, or could not be told.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := directory("--conf-dir", s.confDir, cmd.Flags().Changed("conf-dir")); err != nil {
				return err
			}
			return s.with(func(c *operator.Operator) error {
				report, err := repair(cmd.Context(), c)
				return errors.Join(s.print(cmd.OutOrStdout(), report, report.write), err)
			})
		},
	}
	cmd.Flags().StringVar(&s.confDir, "conf-dir", defaultConfDir, "where the configurations of networks are, for one of which neither a record nor rules are left")
	return cmd
}

func repair(ctx context.Context, c *operator.Operator) (repaired, error) {
	ids, err := c.Rebuild(ctx)
	mended, mendErr := c.Mend(ctx, engine.CompareFirst)
	removed, strayErr := c.RemoveStrays(ctx)
	err = once(errors.Join(err, mendErr, strayErr))
	return repaired{
		Rebuilt: rows(ids), Looked: mended.Looked, Restored: rows(mended.Rules), Rewritten: mended.Rewritten,
		Bridges: append([]string{}, mended.Bridges...), Tunnels: append([]string{}, mended.Tunnels...), Plugged: rows(mended.Plugged),
		Named: rows(mended.Named), StrayNames: append([]string{}, mended.StrayNames...), Services: append([]string{}, mended.Services...),
		Removed: append([]string{}, removed...),
		Failed:  failures(err),
	}, err
}

func rows(ids []model.ID) []rebuilt {
	all := []rebuilt{}
	for _, id := range ids {
		all = append(all, rebuilt{id.Network, id.ContainerID, id.IfName})
	}
	return all
}

func (r repaired) write(out io.Writer) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		errs = append(errs, err)
	}
	if len(r.Rebuilt) > 0 {
		var rows [][]string
		for _, b := range r.Rebuilt {
			rows = append(rows, []string{b.Network, b.Container, b.Interface})
		}
		errs = append(errs, table(out, []string{"NETWORK", "CONTAINER", "INTERFACE"}, rows))
		line("records and leases of %d rebuilt", len(r.Rebuilt))
	}
	if r.Rewritten {
		line("rules were missing, changed, or of another release: written anew")
	}
	for _, b := range r.Bridges {
		line("bridge %s made anew", b)
	}
	for _, t := range r.Tunnels {
		line("tunnel %s made anew", t)
	}
	if len(r.Plugged) > 0 {
		line("links of %s put back on their bridge", counted(len(r.Plugged), "attachment"))
	}
	if len(r.Named) > 0 {
		line("names of %s put back into the kernel", counted(len(r.Named), "attachment"))
	}
	for _, n := range r.StrayNames {
		line("removed the %s from the kernel, of no attachment", cmp.Or(n, "link"))
	}
	for _, f := range r.Services {
		line("service put right: %s", f)
	}
	for _, e := range r.Removed {
		line("deleted the element %s, which did not ask for it", e)
	}
	line("rules of %d attachments and publications put back, %d untouched, %s", len(r.Restored), r.Looked-len(r.Restored), counted(len(r.Failed), "problem"))
	return errors.Join(errs...)
}

// counted is a number of things, as "1 problem" and "2 problems".
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

// once leaves out what two steps found both, as that this user may not look.
func once(err error) error {
	var errs []error
	var said []string
	for _, line := range failures(err) {
		if !slices.Contains(said, line) {
			said, errs = append(said, line), append(errs, errors.New(line))
		}
	}
	return errors.Join(errs...)
}

// failures returns each of the errors that were joined.
func failures(err error) []string {
	if err == nil {
		return []string{}
	}
	return strings.Split(err.Error(), "\n")
}
