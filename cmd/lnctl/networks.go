package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/cmd/lnctl/conf"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/operator"
)

// inUse returns what a new subnet must not overlap.
func (s *settings) inUse() (all []netip.Prefix, err error) {
	err = s.with(func(c *operator.Operator) error {
		all, err = c.SubnetsInUse()
		return err
	})
	return all, err
}

func networkCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "List networks, look into one, make one, remove those without containers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(networkListCommand(s), networkInspectCommand(s), conf.CreateCommand(&s.Output, defaultConfDir, s.inUse), networkRemoveCommand(s), networkPruneCommand(s))
	return cmd
}

func oneNetwork(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("want the name of one network, got %d; lnctl network ls lists them", len(args))}
	}
	return nil
}

// networkSummary is a line of network ls.
type networkSummary struct {
	Name      string      `json:"name"`
	Driver    string      `json:"driver"`
	Bridge    string      `json:"bridge"`
	IPAM      string      `json:"ipam,omitempty"`
	Subnets   []string    `json:"subnets"`
	SubnetUse []subnetUse `json:"subnetUse"` // of each of Subnets
	Endpoints int         `json:"endpoints"`
	Dead      int         `json:"dead"`
}

// subnetUse says how many endpoints have an address of a subnet, and whether that is of an
// earlier configuration.
type subnetUse struct {
	Subnet    string `json:"subnet"`
	Endpoints int    `json:"endpoints"`
	Earlier   bool   `json:"earlier,omitempty"`
}

func (u subnetUse) text() string {
	text := fmt.Sprintf("%s (%s", u.Subnet, counted(u.Endpoints, "endpoint"))
	if u.Earlier {
		text += ", earlier"
	}
	return text + ")"
}

// subnetText is a list of subnets; with their use, if some are of an earlier configuration.
func (n networkSummary) subnetText() string {
	all := n.Subnets
	if slices.ContainsFunc(n.SubnetUse, func(u subnetUse) bool { return u.Earlier }) {
		all = nil
		for _, u := range n.SubnetUse {
			all = append(all, u.text())
		}
	}
	return orDash(strings.Join(all, ", "))
}

func networkListCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the networks of this host",
		Long: "List the networks of this host: those of bridge-ln and overlay-ln, and those that programs made by the library\n" +
			"with another driver. The latter have no bridge of ours; the program that made them inspects and removes them.\n" +
			"Where containers have addresses of a subnet that the configuration does not name any more, that is shown, too, with\n" +
			"the number of endpoints of each.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *operator.Operator) error {
				all, err := summaries(cmd.Context(), c)
				return errors.Join(s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return listNetworks(out, all) }), err)
			})
		},
	}
}

func summaries(ctx context.Context, c *operator.Operator) ([]networkSummary, error) {
	networks, err := c.Networks(ctx)
	errs := []error{err}
	all := []networkSummary{}
	for _, n := range networks {
		sum, err := summary(ctx, c, n)
		all, errs = append(all, sum), append(errs, err)
	}
	others, err := c.OtherNetworks()
	for _, n := range others {
		kind, _ := n.IPAM["type"].(string)
		all = append(all, networkSummary{Name: n.Name, Driver: n.Driver, IPAM: kind, Subnets: []string{}, SubnetUse: []subnetUse{}, Endpoints: n.Endpoints, Dead: n.Dead})
	}
	return all, errors.Join(append(errs, err)...)
}

func summary(ctx context.Context, c *operator.Operator, n *engine.Network) (networkSummary, error) {
	sum := networkSummary{Name: n.Name(), Driver: n.Driver(), Bridge: n.Config().Bridge, IPAM: n.IPAMType(), Subnets: []string{}, SubnetUse: []subnetUse{}}
	endpoints, err := n.Endpoints(ctx)
	for _, u := range operator.SubnetsOf(n, endpoints) {
		sum.Subnets = append(sum.Subnets, u.Subnet.String())
		sum.SubnetUse = append(sum.SubnetUse, subnetUse{u.Subnet.String(), u.Endpoints, u.Earlier})
	}
	for _, e := range endpoints {
		sum.Endpoints++
		if c.Dead(e.Holder()) {
			sum.Dead++
		}
	}
	return sum, err
}

func listNetworks(out io.Writer, all []networkSummary) error {
	var rows [][]string
	for _, n := range all {
		rows = append(rows, []string{
			n.Name, n.Driver, orDash(n.Bridge), orDash(n.IPAM), n.subnetText(), strconv.Itoa(n.Endpoints), strconv.Itoa(n.Dead),
		})
	}
	return table(out, []string{"NAME", "DRIVER", "BRIDGE", "IPAM", "SUBNETS", "ENDPOINTS", "DEAD"}, rows)
}

// texts are values as they are printed, never nil.
func texts[T interface{ String() string }](values []T) []string {
	all := []string{}
	for _, v := range values {
		all = append(all, v.String())
	}
	return all
}

func networkRemoveCommand(s *settings) *cobra.Command {
	var config bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a network that has no container",
		Long: "Remove what is left of a network that has no container: its bridge, if libnet made it, its tunnel, rules, record\n" +
			"and the addresses of dead containers, whether its configuration is still there or not. A network with containers is\n" +
			"refused, and they are named. The next container of a configuration that is still there makes the network anew:\n" +
			"--config deletes the file, too.",
		Args:              oneNetwork,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(c *operator.Operator) error {
				err := c.RemoveNetwork(cmd.Context(), args[0])
				if config && (err == nil || errors.Is(err, model.ErrNotFound)) {
					deleted, deleteErr := s.deleteConfig(args[0])
					if deleteErr != nil || deleted {
						err = deleteErr
					}
				}
				if err != nil {
					return named(args[0], err)
				}
				return s.printRemoved(cmd.OutOrStdout(), []string{args[0]})
			})
		},
	}
	cmd.Flags().BoolVar(&config, "config", false, "delete the file that configures the network, too")
	cmd.Flags().StringVar(&s.confDir, "conf-dir", defaultConfDir, "where the runtime's configurations of networks are")
	return cmd
}

// deleteConfig deletes the file of a network of ours; false if there is none.
func (s *settings) deleteConfig(network string) (deleted bool, err error) {
	for _, f := range netconf.Files(s.confDir) {
		if f.Network != network {
			continue
		}
		if !f.Ours {
			return false, fmt.Errorf("%s is not of libnet, and stays", f.Path)
		}
		return true, os.Remove(f.Path)
	}
	return false, nil
}

// named puts the name of a network before an error, unless the error has it.
func named(network string, err error) error {
	if strings.Contains(err.Error(), strconv.Quote(network)) {
		return err
	}
	return fmt.Errorf("network %q: %w", network, err)
}

func networkPruneCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove all networks that have no container",
		Long:  "Do what \"lnctl network rm\" does for every network that has no container. Networks with containers stay as they are.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *operator.Operator) error {
				removed, err := c.PruneNetworks(cmd.Context())
				return errors.Join(s.printRemoved(cmd.OutOrStdout(), removed), err)
			})
		},
	}
	cmd.Flags().StringVar(&s.confDir, "conf-dir", defaultConfDir, "where the runtime's configurations of networks are; a network of another state directory stays")
	return cmd
}

func (s *settings) printRemoved(out io.Writer, names []string) error {
	return s.print(out, struct {
		Removed []string `json:"removed"`
	}{append([]string{}, names...)}, func(out io.Writer) error {
		var errs []error
		for _, name := range names {
			_, err := fmt.Fprintf(out, "removed network %s\n", name)
			errs = append(errs, err)
		}
		if len(names) == 0 {
			_, err := fmt.Fprintln(out, "no network is without containers")
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}
