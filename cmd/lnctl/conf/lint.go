package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// severity says what a finding of lint does to containers.
type severity string

const (
	bad  severity = "error"   // ADD is refused
	warn severity = "warning" // a key does not do what it was written for
	note severity = "note"    // a key is unknown; it may be a vendor's
)

// finding is a line of lint.
type finding struct {
	File     string   `json:"file"`
	Severity severity `json:"severity"`
	Found    string   `json:"found"`
	Advice   string   `json:"advice,omitempty"`
}

// LintCommand is "lnctl lint".
func LintCommand(o *console.Output) *cobra.Command {
	return &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say what is wrong with configurations of networks; change nothing",
		Long: "Read configurations of networks as the plugins do, and say which values they refuse, which keys are misspelt or without\n" +
			"effect, and which are unknown. FILE may be a directory, or - for the standard input, or a template, in a directory\n" +
			"templates, or the node's defaults.json. It needs no root.\n" +
			"The exit status is 1 if there is an error or a warning; notes are about keys that may be of another program.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return console.Usage("want a file, a directory, or - for the standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := read(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			all := []finding{}
			for _, f := range files {
				all = append(all, lint(f)...)
			}
			err = o.Print(cmd.OutOrStdout(), all, func(out io.Writer) error { return writeFindings(out, files, all) })
			count := func(s severity) (n int) {
				for _, f := range all {
					if f.Severity == s {
						n++
					}
				}
				return n
			}
			if count(bad)+count(warn) > 0 {
				err = errors.Join(err, fmt.Errorf("%d errors and %d warnings", count(bad), count(warn)))
			}
			return err
		},
	}
}

// read reads files, the configurations in directories, and "-".
func read(stdin io.Reader, paths []string) ([]netconf.File, error) {
	var files []netconf.File
	for _, path := range paths {
		if path == "-" {
			data, err := io.ReadAll(stdin)
			if err != nil {
				return nil, err
			}
			files = append(files, netconf.ReadData("standard input", data))
			continue
		}
		switch info, err := os.Stat(path); {
		case err != nil:
			return nil, err
		case info.IsDir():
			files = append(files, netconf.Files(path)...)
		default:
			files = append(files, netconf.ReadFile(path))
		}
	}
	return files, nil
}

// lint finds what is wrong with a file.
func lint(f netconf.File) (all []finding) {
	add := func(s severity, advice, format string, args ...any) {
		all = append(all, finding{f.Path, s, fmt.Sprintf(format, args...), advice})
	}
	for _, err := range parts(f.Err) {
		add(bad, "", "%s", strings.TrimPrefix(located(f.Path, err), f.Path+": "))
	}
	if f.Err != nil && !f.Ours || f.Below {
		return all
	}
	if !f.Ours {
		add(note, "", "no plugin of libnet is in it")
		return all
	}
	if !model.ValidName(f.Network) {
		add(bad, "", "name: %q: want letters, digits, '.', '_' and '-', a letter or digit first", f.Network)
	}
	for _, m := range f.Networks {
		if err := pool(m); err != nil {
			add(bad, "", "%v", err)
		}
	}
	for _, k := range f.Keys {
		switch {
		case k.Right != "":
			add(warn, "write "+k.Right, "%s", k)
		default:
			add(warn, "delete it", "%s", k)
		}
	}
	for _, k := range f.Strange {
		add(note, "", "%s; it is passed over, unless another program reads it", k)
	}
	return all
}

// pool says why the pool of a network cannot be.
func pool(m netconf.Member) error {
	if m.Pool == nil || m.Plugin == netconf.Overlay {
		return nil
	}
	if _, v6 := m.Pool.Families(); v6 > 0 && m.Config.MTU > 0 && m.Config.MTU < 1280 {
		return model.BadConfig("mtu", m.Config.MTU, "want at least 1280 bytes, as the network has IPv6")
	}
	if len(m.Pool.Wants) > 0 {
		_, err := address.NewAutoPool(m.Pool.Config, m.Pool.Wants, m.Pool.Extra)
		return m.Pool.NameError(err)
	}
	p, err := address.NewPool(m.Pool.Config, m.Pool.Extra)
	if err == nil {
		err = p.Suits(m.Config)
	}
	return m.Pool.NameError(err)
}

// parts are the errors that were joined.
func parts(err error) []error {
	if joined, is := err.(interface{ Unwrap() []error }); is {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// located adds the line to an error of syntax.
func located(path string, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return err.Error()
	}
	data, readErr := os.ReadFile(path)
	if readErr != nil || syntax.Offset > int64(len(data)) {
		return err.Error()
	}
	before := string(data[:syntax.Offset])
	return fmt.Sprintf("line %d, column %d: %v", strings.Count(before, "\n")+1, len(before)-strings.LastIndex(before, "\n")-1, err)
}

func writeFindings(out io.Writer, files []netconf.File, all []finding) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		errs = append(errs, err)
	}
	marks := map[severity]string{
		bad: console.Paint(out, console.Red, "✗"), warn: console.Paint(out, console.Yellow, "!"), note: "·",
	}
	for _, f := range files {
		if !slices.ContainsFunc(all, func(of finding) bool { return of.File == f.Path && of.Severity != note }) {
			line("%s %s", console.Paint(out, console.Green, "✓"), f.Path)
		}
		for _, of := range all {
			if of.File != f.Path {
				continue
			}
			line("%s %s: %s", marks[of.Severity], filepath.Clean(f.Path), of.Found)
			if of.Advice != "" {
				line("  → %s", of.Advice)
			}
		}
	}
	return errors.Join(errs...)
}
