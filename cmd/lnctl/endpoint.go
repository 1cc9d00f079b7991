package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

// endpoint is an attachment with its network.
type endpoint struct {
	Network string `json:"network"`
	Bridge  string `json:"bridge"`
	attachment
	Ports []port `json:"ports"`
	// Wrong is how it differs from what was made; "" if it was not compared.
	Wrong string `json:"wrong,omitempty"`

	of *engine.Endpoint
}

func endpointCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "endpoint",
		Short: "List the attachments of containers to networks, look into one",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use:               "ls [NETWORK]",
		Aliases:           []string{"list"},
		Short:             "List the attachments of a network, or of all",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(c *operator.Operator) error {
				all, err := endpoints(cmd.Context(), c, args)
				if err != nil && len(all) == 0 {
					return err
				}
				return errors.Join(s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return s.writeEndpoints(out, all) }), err)
			})
		},
	}
	inspect := &cobra.Command{
		Use:               "inspect CONTAINER",
		Short:             "Show a container's attachments with their ports, and whether they are as they were made",
		Long:              "Show all attachments of a container, given by its ID or a beginning of it, with their ports, and compare each with\nwhat was made. The exit status is 1 if one differs.",
		Args:              oneContainer,
		ValidArgsFunction: s.completeContainers,
		RunE:              func(cmd *cobra.Command, args []string) error { return s.inspectContainer(cmd, args[0]) },
	}
	cmd.AddCommand(list, inspect)
	return cmd
}

func oneContainer(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return console.Usage("want the ID of one container, or the beginning of it; lnctl endpoint ls lists them")
	}
	return nil
}

// endpoints are those of one network, or of all.
func endpoints(ctx context.Context, c *operator.Operator, args []string) ([]endpoint, error) {
	networks, err := networksOf(ctx, c, args)
	errs := []error{err}
	all := []endpoint{}
	for _, n := range networks {
		of, err := n.Endpoints(ctx)
		errs = append(errs, err)
		for _, e := range of {
			a := c.Inspect(e)
			all = append(all, endpoint{
				Network: n.Name(), Bridge: n.Config().Bridge, attachment: attachmentOf(a), Ports: append([]port{}, portsOf(a, byNetwork)...), of: e,
			})
		}
	}
	return all, errors.Join(errs...)
}

func (s *settings) writeEndpoints(out io.Writer, all []endpoint) error {
	head := []string{"NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "STATE"}
	if s.Wide() {
		head = append(head, "MAC", "HOST INTERFACE", "BRIDGE", "NETNS", "RUNTIME", "RULES")
	}
	var rows [][]string
	for _, e := range all {
		row := []string{e.Network, e.Container, e.Interface, orDash(strings.Join(e.Addresses, ", ")), e.text()}
		if s.Wide() {
			row = append(row, orDash(e.MAC), e.HostInterface, orDash(e.Bridge), orDash(e.Netns), orDash(e.Runtime), orDash(e.Backend))
		}
		rows = append(rows, row)
	}
	return table(out, head, rows)
}

func (s *settings) inspectContainer(cmd *cobra.Command, id string) error {
	return s.with(func(c *operator.Operator) error {
		all, err := endpoints(cmd.Context(), c, nil)
		all = slices.DeleteFunc(all, func(e endpoint) bool { return !strings.HasPrefix(e.Container, id) })
		if exact := slices.IndexFunc(all, func(e endpoint) bool { return e.Container == id }); exact >= 0 {
			all = slices.DeleteFunc(all, func(e endpoint) bool { return e.Container != id })
		}
		switch {
		case len(all) == 0:
			return errors.Join(fmt.Errorf("container %q: not found; lnctl endpoint ls lists them", id), err)
		case slices.ContainsFunc(all, func(e endpoint) bool { return e.Container != all[0].Container }):
			return errors.Join(fmt.Errorf("container %q: more than one begins so: %s and %s", id, all[0].Container, all[len(all)-1].Container), err)
		}
		wrong := compare(cmd.Context(), all)
		err = errors.Join(err, s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeInspected(out, all) }))
		if wrong > 0 {
			err = errors.Join(err, fmt.Errorf("%d of %d attachments are not as they were made; lnctl doctor says what to do", wrong, len(all)))
		}
		return err
	})
}

// compare notes how attachments differ from what was made, and counts those that do.
func compare(ctx context.Context, all []endpoint) (wrong int) {
	for i, e := range all {
		if err := e.of.Verify(ctx); err != nil {
			all[i].Wrong = strings.ReplaceAll(err.Error(), "\n", "; ")
			wrong++
		}
	}
	return wrong
}

func writeInspected(out io.Writer, all []endpoint) error {
	var errs []error
	line := func(key, value string) {
		_, err := fmt.Fprintf(out, "%-16s %s\n", key+":", orDash(value))
		errs = append(errs, err)
	}
	for i, e := range all {
		if i > 0 {
			_, err := fmt.Fprintln(out)
			errs = append(errs, err)
		}
		line("container", e.Container)
		line("network", e.Network)
		line("interface", e.Interface)
		line("addresses", strings.Join(e.Addresses, ", "))
		line("mac", e.MAC)
		line("host interface", fmt.Sprintf("%s, a port of %s", e.HostInterface, e.Bridge))
		line("netns", e.Netns)
		line("runtime", e.Runtime)
		line("rules", e.Backend)
		line("state", e.text())
		for _, p := range e.Ports {
			line("port", fmt.Sprintf("%s %s → %s, %s", p.host, p.Protocol, p.target, p.stateText()))
		}
		checked := console.Paint(out, console.Green, "✓") + " as it was made"
		if e.Wrong != "" {
			checked = console.Paint(out, console.Red, "✗") + " " + e.Wrong
		}
		line("check", checked)
	}
	return errors.Join(errs...)
}

func checkCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "check [NETWORK]",
		Short: "Compare the attachments of a network, or of all, with what was made, as CHECK does",
		Long: "Compare the attachments of a network, or of all, with what was made: links, addresses, routes, rules, leases.\n" +
			"It changes nothing. The exit status is 1 if one differs. lnctl doctor looks at the host, too.",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(c *operator.Operator) error {
				all, err := endpoints(cmd.Context(), c, args)
				if err != nil && len(all) == 0 {
					return err
				}
				all = slices.DeleteFunc(all, func(e endpoint) bool { return e.State != string(operator.Alive) })
				wrong := compare(cmd.Context(), all)
				err = errors.Join(err, s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeChecked(out, all) }))
				if wrong > 0 {
					err = errors.Join(err, fmt.Errorf("%d of %d attachments are not as they were made; lnctl doctor says what to do", wrong, len(all)))
				}
				return err
			})
		},
	}
}

func writeChecked(out io.Writer, all []endpoint) error {
	var errs []error
	for _, e := range all {
		mark, found := console.Paint(out, console.Green, "✓"), "as it was made"
		if e.Wrong != "" {
			mark, found = console.Paint(out, console.Red, "✗"), e.Wrong
		}
		_, err := fmt.Fprintf(out, "%s %s %s %s: %s\n", mark, e.Network, e.Container, e.Interface, found)
		errs = append(errs, err)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no container is attached")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
