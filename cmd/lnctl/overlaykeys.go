package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

func overlayKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make this host's private key for encrypted networks, and print the public key",
		Long: "Write a new private key to FILE, which is not there yet and which no other user can read at any moment, and print\n" +
			"its public key. FILE is the privateKeyFile of this host, the public key its publicKey in nodes, on every host.",
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			public, err := operator.MakeKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), public)
			return err
		},
	}
}

func overlayPubkeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pubkey FILE",
		Short: "Print the public key of a private key that keygen made",
		Args:  oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			public, err := operator.PublicKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), public)
			return err
		},
	}
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usageError{fmt.Errorf("want the path of one file, got %d; see %s --help", len(args), cmd.CommandPath())}
	}
	return nil
}

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
