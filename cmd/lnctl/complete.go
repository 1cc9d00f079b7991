package main

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

// completer offers words for an argument or a flag.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeFlag offers words for a flag of cmd, which has it.
func completeFlag(cmd *cobra.Command, flag string, fn completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, fn) // an error is that there is no such flag
}

// completed are the words that the host has; what cannot be read it has not.
func (s *settings) completed(begun string, list func(*operator.Operator) []string) ([]string, cobra.ShellCompDirective) {
	var words []string
	_ = s.with(func(c *operator.Operator) error {
		words = list(c)
		return nil
	})
	words = slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, begun) })
	slices.Sort(words)
	return slices.Compact(words), cobra.ShellCompDirectiveNoFileComp
}

// completeNetworks offers the networks of the host for the first argument.
func (s *settings) completeNetworks(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completed(begun, func(c *operator.Operator) (words []string) {
		networks, _ := c.Networks(contextOf(cmd))
		for _, n := range networks {
			words = append(words, n.Name())
		}
		return words
	})
}

// completeContainers offers the containers that have an attachment.
func (s *settings) completeContainers(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.completed(begun, func(*operator.Operator) (words []string) {
		records, _ := s.records()
		for _, r := range records {
			words = append(words, r.ContainerID)
		}
		return words
	})
}

// completeBoth offers a network, then a container.
func (s *settings) completeBoth(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return s.completeContainers(cmd, nil, begun)
	}
	return s.completeNetworks(cmd, args, begun)
}

// contextOf is that of a command; completion runs without one.
func contextOf(cmd *cobra.Command) context.Context {
	return cmp.Or(cmd.Context(), context.Background())
}
