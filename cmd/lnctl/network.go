package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func networkCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "List networks, look into one, remove those without containers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(networkListCommand(s), networkInspectCommand(s), networkRemoveCommand(s), networkPruneCommand(s))
	return cmd
}

func oneNetwork(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("want the name of one network, got %d; lnctl network ls lists them", len(args))}
	}
	return nil
}
