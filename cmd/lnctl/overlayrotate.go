package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

func overlayRotateCommand(s *settings) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "rotate-keys [NETWORK]",
		Short: "Have all hosts of encrypted networks change their keys, by ln-agent, without a packet lost",
		Long: "Have the ln-agent of this host begin a new epoch of keys of NETWORK, or of all encrypted networks that it keeps,\n" +
			"and wait until all hosts have followed. A host sends by its new key only once a handshake with it is complete.\n" +
			"It is refused while a host has not got the keys of the change before.",
		Args: networkOrAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return usageError{fmt.Errorf("--wait %s: want 0, for none, or more", wait)}
			}
			return s.with(func(o *operator.Operator) error {
				names := args
				if len(names) == 0 {
					var err error
					if names, err = o.KeyedNetworks(); err != nil {
						return err
					}
				}
				var errs []error
				for _, name := range names {
					start := time.Now()
					epoch, err := o.RotateKeys(name, wait)
					if err == nil {
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: epoch %d, %d ms\n", name, epoch, time.Since(start).Milliseconds())
					} else {
						err = fmt.Errorf("network %q: %w", name, err)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the other hosts; 0: not at all")
	return cmd
}
