package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/operator"
)

// settings are the flags that every command has.
type settings struct {
	stateDir, dataDir string
	confDir           string // of repair
	json              bool
}

// defaultConfDir is where runtimes look for configurations of networks.
const defaultConfDir = "/etc/cni/net.d"

// usageError is a command line that cannot be.
type usageError struct{ error }

func rootCommand() *cobra.Command {
	var s settings
	root := &cobra.Command{
		Use:   "lnctl",
		Short: "Look after the container networks of this host",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if !filepath.IsAbs(s.dataDir) { // it comes with the first pool
				return usageError{fmt.Errorf("--data-dir %q: want an absolute path", s.dataDir)}
			}
			return directory("--state-dir", s.stateDir, cmd.Flags().Changed("state-dir"))
		},
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("lnctl {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&s.stateDir, "state-dir", "/run/libnet", "where the plugins keep their records (their key stateDir)")
	flags.StringVar(&s.dataDir, "data-dir", address.DefaultDataDir, "where new pools keep their leases (ipam.dataDir); a network's record names its own")
	flags.BoolVar(&s.json, "json", false, "print JSON")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(networkCommand(&s), portsCommand(&s), namesCommand(&s), serviceCommand(&s), repairCommand(&s), gcCommand(&s), doctorCommand(&s), overlayCommand(&s), versionCommand(&s))
	return root
}

// directory refuses the value of a flag that was given and names no directory: from
// an empty answer it could not be told from one that is right.
func directory(flag, path string, given bool) error {
	if !given {
		return nil
	}
	if !filepath.IsAbs(path) {
		return usageError{fmt.Errorf("%s %q: want an absolute path", flag, path)}
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return usageError{fmt.Errorf("%s %q: there is no such directory", flag, path)}
	case err != nil:
		return fmt.Errorf("%s: %w", flag, err)
	case !info.IsDir():
		return usageError{fmt.Errorf("%s %q: it is no directory", flag, path)}
	}
	return nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown argument %q; see %s --help", args[0], cmd.CommandPath())}
	}
	return nil
}

// with calls fn with an Operator of the settings.
func (s *settings) with(fn func(*operator.Operator) error) error {
	configured := func(network string) (model.NetworkConfig, bool, error) {
		return netconf.Configured(cmp.Or(s.confDir, defaultConfDir), network)
	}
	c, err := operator.Open(operator.Options{StateDir: s.stateDir, DataDir: s.dataDir, Configurations: configured})
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

// print writes v as JSON, or what text writes.
func (s *settings) print(out io.Writer, v any, text func(io.Writer) error) error {
	if !s.json {
		return text(out)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows of cells in columns, the head first.
func table(out io.Writer, head []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var errs []error
	for _, row := range append([][]string{head}, rows...) {
		_, err := fmt.Fprintln(w, strings.Join(row, "\t"))
		errs = append(errs, err)
	}
	return errors.Join(append(errs, w.Flush())...)
}

// orDash stands in a cell that would be empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
