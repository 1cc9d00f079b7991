package main

import (
	"fmt"

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
