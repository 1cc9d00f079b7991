package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

// finding is a line of doctor.
type finding struct {
	About  string `json:"about"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func doctorCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps networks from working, and say what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *operator.Operator) error {
				var all []finding
				bad := 0
				for _, f := range c.Diagnose(cmd.Context()) {
					all = append(all, finding{f.About, f.Advice == "", f.Found, f.Advice})
					if f.Advice != "" {
						bad++
					}
				}
				for _, f := range overlayFindings(cmd.Context(), c) {
					all = append(all, f)
					if !f.OK {
						bad++
					}
				}
				err := s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeFindings(out, all) })
				if bad > 0 {
					err = errors.Join(err, fmt.Errorf("%d of %d checks failed", bad, len(all)))
				}
				return err
			})
		},
	}
}

func writeFindings(out io.Writer, all []finding) error {
	var errs []error
	for _, f := range all {
		mark := "✓"
		if !f.OK {
			mark = "✗"
		}
		_, err := fmt.Fprintf(out, "%s %-17s %s\n", mark, f.About, f.Found)
		errs = append(errs, err)
		if !f.OK {
			_, err := fmt.Fprintf(out, "  %-17s → %s\n", "", f.Advice)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
