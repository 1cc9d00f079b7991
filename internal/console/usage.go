package console

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// UsageError is a command line that cannot be.
type UsageError struct{ Err error }

// Usage returns a UsageError.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Error is that of what is wrong.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// NoArgs refuses arguments. Of a command with commands of its own it says which of them was
// probably meant.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return Usage("unexpected argument %q: %s takes none; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = nearEnough
	}
	return Usage("unknown command %q for %s%s; see %s --help", args[0], cmd.CommandPath(), meant(cmd.SuggestionsFor(args[0]), cmd.CommandPath()+" "), cmd.CommandPath())
}

// One refuses anything but one argument, and says what it wants.
func One(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return Usage("want %s, got %d", what, len(args))
		}
		return nil
	}
}

// nearEnough is how many letters a word may differ from a command and be taken for it.
const nearEnough = 2

// meant is ", did you mean ...?" of the first words that are near, or nothing.
func meant(near []string, before string) string {
	if len(near) == 0 {
		return ""
	}
	var quoted []string
	for _, word := range near[:min(len(near), 3)] {
		quoted = append(quoted, fmt.Sprintf("%q", before+word))
	}
	return ": did you mean " + strings.Join(quoted, " or ") + "?"
}

// FlagError says of an unknown flag which one was probably meant.
func FlagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return &UsageError{err}
	}
	// cobra compares words for commands only.
	flags := cobra.Command{SuggestionsMinimumDistance: nearEnough}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return Usage("%w%s", err, meant(flags.SuggestionsFor(unknown.GetSpecifiedName()), "--"))
}
