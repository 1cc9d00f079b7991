package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

// poolUse is a line of ipam status.
type poolUse struct {
	Network  string   `json:"network"`
	Subnets  []string `json:"subnets"`
	Held     uint64   `json:"held"`
	Cooling  uint64   `json:"cooling"`
	Free     uint64   `json:"free"`
	Capacity uint64   `json:"capacity"`
	Problem  string   `json:"problem,omitempty"` // why the use is not known
}

// lease is a line of ipam ls.
type lease struct {
	Network   string     `json:"network"`
	Address   string     `json:"address"`
	Container string     `json:"container,omitempty"`
	Interface string     `json:"interface,omitempty"`
	State     string     `json:"state"`
	Why       string     `json:"why,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Until     *time.Time `json:"until,omitempty"` // with the state cooling
	Workload  string     `json:"workload,omitempty"`
}

func ipamCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipam",
		Short: "Look at pools of addresses: how full they are, and what holds an address",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status := &cobra.Command{
		Use:               "status [NETWORK]",
		Short:             "Say how many addresses of each pool are held, cooling and free",
		Long:              "Say how many addresses of each range set of a network, or of all, are held, cooling and free. An address cools after\nits release for as long as ipam.cooldown says.",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.pools(cmd, args, func(pools []operator.PoolState) error {
				all := usesOf(pools)
				return s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeUses(out, all) })
			})
		},
	}
	list := &cobra.Command{
		Use:               "ls [NETWORK]",
		Aliases:           []string{"list"},
		Short:             "List the addresses that are held, by which container, and those that are cooling",
		Long:              "List the addresses that are held, by which container and whether that lives, and behind them those that cool after\ntheir release: until when they are given to no other container, unless that asks for one by its address.",
		Args:              networkOrAll,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.pools(cmd, args, func(pools []operator.PoolState) error {
				all := []lease{}
				for _, p := range pools {
					all = append(all, leasesOf(p.Network, p.Leases)...)
					all = append(all, leasesOf(p.Network, p.Cooling)...)
				}
				return s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return s.writeLeases(out, all) })
			})
		},
	}
	cmd.AddCommand(status, list, releaseCommand(s))
	return cmd
}

// pools calls fn with the pool of one network, or of all that have one, and what could be
// read of it.
func (s *settings) pools(cmd *cobra.Command, args []string, fn func([]operator.PoolState) error) error {
	return s.with(func(c *operator.Operator) error {
		networks, err := networksOf(cmd.Context(), c, args)
		if err != nil && len(networks) == 0 {
			return err
		}
		errs := []error{err}
		var all []operator.PoolState
		for _, n := range networks {
			p, err := c.Pool(cmd.Context(), n)
			if errors.Is(err, operator.ErrNoPool) {
				if len(args) > 0 {
					return err
				}
				continue
			}
			all, errs = append(all, p), append(errs, err)
		}
		return errors.Join(fn(all), errors.Join(errs...))
	})
}

// networksOf is the network that an argument names, or all.
func networksOf(ctx context.Context, c *operator.Operator, args []string) ([]*engine.Network, error) {
	if len(args) == 0 {
		return c.Networks(ctx)
	}
	n, err := c.Network(args[0])
	if err != nil {
		return nil, err
	}
	return []*engine.Network{n}, nil
}

func usesOf(pools []operator.PoolState) []poolUse {
	all := []poolUse{}
	for _, p := range pools {
		for _, set := range p.Sets {
			all = append(all, poolUse{
				Network: p.Network, Subnets: texts(set.Subnets), Held: set.Held, Cooling: set.Cooling,
				Free: set.Capacity - min(set.Capacity, set.Held+set.Cooling), Capacity: set.Capacity, Problem: p.NotRead,
			})
		}
	}
	return all
}

func writeUses(out io.Writer, all []poolUse) error {
	var rows [][]string
	for _, u := range all {
		use := []string{console.Bar(u.Held+u.Cooling, u.Capacity), fmt.Sprint(u.Held), fmt.Sprint(u.Cooling), fmt.Sprint(u.Free), fmt.Sprint(u.Capacity)}
		if u.Problem != "" {
			use = []string{u.Problem, "-", "-", "-", "-"}
		}
		rows = append(rows, append([]string{u.Network, strings.Join(u.Subnets, ", ")}, use...))
	}
	return table(out, []string{"NETWORK", "SUBNETS", "USED", "HELD", "COOLING", "FREE", "OF"}, rows)
}

func leasesOf(network string, leases []operator.Lease) (all []lease) {
	for _, l := range leases {
		of := lease{
			Network: network, Address: l.Addr.String(), Container: l.ID.ContainerID, Interface: l.ID.IfName,
			State: string(l.State), Why: l.Why, Workload: l.Workload,
		}
		if !l.Since.IsZero() {
			of.Since = &l.Since
		}
		if !l.Until.IsZero() {
			of.Until = &l.Until
			of.Why = "not given again before " + l.Until.Format(time.RFC3339)
		}
		all = append(all, of)
	}
	return all
}

func (s *settings) writeLeases(out io.Writer, all []lease) error {
	head := []string{"NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "STATE"}
	if s.Wide() {
		head = append(head, "SINCE", "WORKLOAD")
	}
	var rows [][]string
	for _, l := range all {
		row := []string{l.Network, l.Address, orDash(l.Container), orDash(l.Interface), condition{l.State, l.Why}.text()}
		if s.Wide() {
			since := ""
			if l.Since != nil {
				since = l.Since.Format(time.RFC3339)
			}
			row = append(row, orDash(since), orDash(l.Workload))
		}
		rows = append(rows, row)
	}
	return table(out, head, rows)
}

func releaseCommand(s *settings) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "release NETWORK ADDRESS",
		Short: "Take an address back that a container without a record holds",
		Long: "Take an address back whose container is provably gone, with the other addresses of the same attachment. One of a\n" +
			"container that may live is refused; with --force it is released, unless libnet has a record of that attachment: then\n" +
			"its runtime has to remove the container. A container that still uses the address then shares it with the next one.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return console.Usage("want a network and an address of it; lnctl ipam ls lists them")
			}
			if _, err := netip.ParseAddr(args[1]); err != nil {
				return console.Usage("address %q: want one as 10.1.0.5 or fd00::5", args[1])
			}
			return nil
		},
		ValidArgsFunction: s.completeLease,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(c *operator.Operator) error {
				n, err := c.Network(args[0])
				if err != nil {
					return err
				}
				lost, err := c.Release(cmd.Context(), n, netip.MustParseAddr(args[1]).Unmap(), force)
				if err != nil {
					return err
				}
				all := leasesOf(n.Name(), lost)
				return s.print(cmd.OutOrStdout(), all, func(out io.Writer) error {
					var errs []error
					for _, l := range all {
						_, err := fmt.Fprintf(out, "released %s of %s %s\n", l.Address, l.Container, l.Interface)
						errs = append(errs, err)
					}
					return errors.Join(errs...)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "release an address whose container is not provably gone, too")
	return cmd
}
