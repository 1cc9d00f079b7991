package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/operator"
)

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
	return &cobra.Command{
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
