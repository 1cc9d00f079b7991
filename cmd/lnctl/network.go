package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/cmd/lnctl/conf"
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
