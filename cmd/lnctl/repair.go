package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

func repairCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "repair",
		Short: "Put firewall rules back that somebody removed",
		Long: "Put the firewall rules of every attachment and published port back, by their records, after somebody\n" +
			"flushed or removed them. What is as it should be stays untouched. Links and addresses are not remade.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *libnet.Controller) error {
				looked, err := c.Repair(cmd.Context())
				report := struct {
					Looked int      `json:"looked"`
					Failed []string `json:"failed"`
				}{looked, failures(err)}
				printErr := s.print(cmd.OutOrStdout(), report, func(out io.Writer) error {
					_, err := fmt.Fprintf(out, "rules of %d attachments and publications looked at, %d problems\n", looked, len(report.Failed))
					return err
				})
				return errors.Join(printErr, err)
			})
		},
	}
}

// failures returns each of the errors that were joined.
func failures(err error) []string {
	if err == nil {
		return []string{}
	}
	return strings.Split(err.Error(), "\n")
}
