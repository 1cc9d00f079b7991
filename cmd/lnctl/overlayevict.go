package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

func overlayEvictCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "evict NODE",
		Short: "Have all hosts leave one out of all networks that ln-agent keeps, at once",
		Long: "Have all hosts leave NODE out of all networks that ln-agent keeps: nothing gets there, or from there into an\n" +
			"encrypted network. NODE has its --node-name, and keeps its blocks until it leaves, or --block-ttl after its last\n" +
			"word. Take its access to etcd away first: with that it could take the eviction back.",
		Args: oneNode,
		RunE: func(_ *cobra.Command, args []string) error {
			return s.with(func(o *operator.Operator) error { return o.Evict(args[0]) })
		},
	}
}

func overlayAdmitCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "admit NODE",
		Short: "Take back evict",
		Args:  oneNode,
		RunE: func(_ *cobra.Command, args []string) error {
			return s.with(func(o *operator.Operator) error { return o.Admit(args[0]) })
		},
	}
}

func oneNode(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usageError{fmt.Errorf("want the name of one node, got %d; see %s --help", len(args), cmd.CommandPath())}
	}
	return nil
}
