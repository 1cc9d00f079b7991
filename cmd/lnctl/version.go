package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func versionCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.print(cmd.OutOrStdout(), map[string]string{"version": version}, func(out io.Writer) error {
				_, err := fmt.Fprintln(out, "lnctl", version)
				return err
			})
		},
	}
}
