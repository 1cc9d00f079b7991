package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// repaired is what repair did.
type repaired struct {
	Rebuilt []rebuilt `json:"rebuilt"`
	Looked  int       `json:"looked"`
	Failed  []string  `json:"failed"`
}

// rebuilt is an attachment, or a container with published ports, whose record
// or lease was lost.
type rebuilt struct {
	Network   string `json:"network"`
	Container string `json:"container"`
	Interface string `json:"interface"`
}

func repairCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "repair",
		Short: "Put back lost records, leases and firewall rules",
		Long: "Write the records and address leases that are lost, by what the kernel still tells of running containers.\n" +
			"Then put the firewall rules of every attachment and published port back, by their records, after somebody\n" +
			"flushed or removed them. What is as it should be stays untouched. Links and addresses are not remade.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *libnet.Controller) error {
				report, err := repair(cmd.Context(), c)
				return errors.Join(s.print(cmd.OutOrStdout(), report, report.write), err)
			})
		},
	}
}

func repair(ctx context.Context, c *libnet.Controller) (repaired, error) {
	ids, err := c.Rebuild(ctx)
	looked, rulesErr := c.Repair(ctx)
	err = errors.Join(err, rulesErr)
	r := repaired{Rebuilt: []rebuilt{}, Looked: looked, Failed: failures(err)}
	for _, id := range ids {
		r.Rebuilt = append(r.Rebuilt, rebuilt{id.Network, id.ContainerID, id.IfName})
	}
	return r, err
}

func (r repaired) write(out io.Writer) error {
	var errs []error
	if len(r.Rebuilt) > 0 {
		var rows [][]string
		for _, b := range r.Rebuilt {
			rows = append(rows, []string{b.Network, b.Container, b.Interface})
		}
		errs = append(errs, table(out, []string{"NETWORK", "CONTAINER", "INTERFACE"}, rows))
		_, err := fmt.Fprintf(out, "records and leases of %d rebuilt\n", len(r.Rebuilt))
		errs = append(errs, err)
	}
	_, err := fmt.Fprintf(out, "rules of %d attachments and publications looked at, %d problems\n", r.Looked, len(r.Failed))
	return errors.Join(append(errs, err)...)
}

// failures returns each of the errors that were joined.
func failures(err error) []string {
	if err == nil {
		return []string{}
	}
	return strings.Split(err.Error(), "\n")
}
