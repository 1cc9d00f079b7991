package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/cmd/lnctl/agent"
	"github.com/libnet-cni/libnet/cmd/lnctl/conf"
	"github.com/libnet-cni/libnet/cmd/lnctl/connect"
	"github.com/libnet-cni/libnet/cmd/lnctl/explain"
	"github.com/libnet-cni/libnet/cmd/lnctl/graph"
	"github.com/libnet-cni/libnet/cmd/lnctl/live"
	"github.com/libnet-cni/libnet/cmd/lnctl/status"
	"github.com/libnet-cni/libnet/cmd/lnctl/trace"
	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/operator"
)

// settings are the flags that every command has.
type settings struct {
	stateDir, dataDir string
	confDir           string // of doctor and repair
	console.Output
}

// defaultConfDir is where runtimes look for configurations of networks.
const defaultConfDir = "/etc/cni/net.d"

// usageError is a command line that cannot be.
type usageError struct{ error }

const longHelp = `Look after the container networks of this host. Without a command it says where the host stands.

Commands that look at the host, or change it, need root. lint, explain, import, version, completion,
overlay keygen and overlay pubkey do not.

The exit status is 0, or
  1  if something failed, or was found wrong
  2  if the command line is wrong
  3  if the command needs root`

func rootCommand() (*cobra.Command, *settings) {
	var s settings
	var showsVersion bool
	root := &cobra.Command{
		Use:   "lnctl",
		Short: "Look after the container networks of this host",
		Long:  longHelp,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showsVersion {
				return s.printVersion(cmd.OutOrStdout())
			}
			if permitted() != nil {
				return cmd.Help()
			}
			return s.statusHost().Print(cmd)
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if !filepath.IsAbs(s.dataDir) { // it comes with the first pool
				return usageError{fmt.Errorf("--data-dir %q: want an absolute path", s.dataDir)}
			}
			return directory("--state-dir", s.stateDir, cmd.Flags().Changed("state-dir"))
		},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// cobra's own words need text/template, by which the linker keeps every method: 3 MB.
	root.Flags().BoolVarP(&showsVersion, "version", "v", false, "print the version")
	flags := root.PersistentFlags()
	flags.StringVar(&s.stateDir, "state-dir", "/run/libnet", "where the plugins keep their records (their key stateDir)")
	flags.StringVar(&s.dataDir, "data-dir", address.DefaultDataDir, "where new pools keep their leases (ipam.dataDir); a network's record names its own")
	s.AddFlags(flags)
	root.SetFlagErrorFunc(console.FlagError)
	completeFlag(root, "output", cobra.FixedCompletions(console.Formats(), cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(status.Command(s.statusHost()), agent.Command(agent.Host{Output: &s.Output, StateDir: &s.stateDir, Permitted: permitted}), networkCommand(&s), endpointCommand(&s), ipamCommand(&s), checkCommand(&s), portsCommand(&s), portCommand(&s), namesCommand(&s), serviceCommand(&s), repairCommand(&s), gcCommand(&s), doctorCommand(&s), connect.Command(s.connectHost()), connect.DisconnectCommand(s.connectHost()), trace.Command(&s.Output, s.records, s.whyRefused, s.completeTraced), live.WatchCommand(s.liveHost()), live.TopCommand(s.liveHost()), graph.Command(&s.Output, s.with), conf.LintCommand(&s.Output), conf.TemplateCommand(&s.Output, defaultConfDir), conf.ImportCommand(&s.Output, defaultConfDir), explain.Command(&s.Output, version), overlayCommand(&s), versionCommand(&s))
	return root, &s
}

// addCompletion adds the command that cobra adds, with a refusal of words that are no shell.
// It prints to where root does now.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd("completion")
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = shellNamed, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// shellNamed refuses what is no shell.
func shellNamed(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("want a shell: bash, zsh, fish or powershell")}
	}
	return noArgs(cmd, args)
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

func noArgs(cmd *cobra.Command, args []string) error { return console.NoArgs(cmd, args) }

// errNeedsRoot is of a command that an ordinary user runs.
var errNeedsRoot = errors.New("needs root, as it looks at the host's links, rules and records: run it by sudo")

// permitted is errNeedsRoot for a process that may not look at the host.
func permitted() error {
	if os.Geteuid() == 0 {
		return nil
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err == nil && caps[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		return nil
	}
	return errNeedsRoot
}

// with calls fn with an Operator of the settings.
func (s *settings) with(fn func(*operator.Operator) error) error {
	if err := permitted(); err != nil {
		return err
	}
	configured := func(network string) (model.NetworkConfig, bool, error) {
		return netconf.Configured(cmp.Or(s.confDir, defaultConfDir), network)
	}
	c, err := operator.Open(operator.Options{StateDir: s.stateDir, DataDir: s.dataDir, Configurations: configured, Elsewhere: s.elsewhere()})
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

// elsewhere returns the state directory of a network whose configuration names none that is
// that of the command. It reads the configurations once, when it is first asked.
func (s *settings) elsewhere() func(network string) string {
	files := sync.OnceValue(func() []netconf.File { return netconf.Files(cmp.Or(s.confDir, defaultConfDir)) })
	return func(network string) (dir string) {
		for _, f := range files() {
			for _, d := range f.StateDirs {
				d = filepath.Clean(cmp.Or(d, engine.DefaultStateDir))
				if f.Network == network && d == filepath.Clean(s.stateDir) {
					return ""
				}
				if f.Network == network {
					dir = d
				}
			}
		}
		return dir
	}
}

func (s *settings) connectHost() connect.Host {
	return connect.Host{
		Output: &s.Output, With: s.with, Records: s.records, StateDir: &s.stateDir, ConfDir: &s.confDir, DefaultConfDir: defaultConfDir, Version: version,
		Complete: s.completeBoth,
	}
}

func (s *settings) statusHost() status.Host {
	return status.Host{Output: &s.Output, With: s.with, StateDir: &s.stateDir, Version: version, Problems: func(ctx context.Context, o *operator.Operator) (int, string) {
		s.confDir = cmp.Or(s.confDir, defaultConfDir)
		all, bad := s.diagnose(ctx, o, "")
		for _, f := range all {
			if !f.OK {
				return bad, f.Found
			}
		}
		return bad, ""
	}}
}

func (s *settings) liveHost() live.Host {
	return live.Host{Output: &s.Output, StateDir: &s.stateDir, Permitted: permitted, Networks: s.completeNetworks, Records: s.records}
}

// print writes v as JSON or YAML, or what text writes.
func (s *settings) print(out io.Writer, v any, text func(io.Writer) error) error {
	return s.Print(out, v, text)
}

func table(out io.Writer, head []string, rows [][]string) error {
	return console.WriteTable(out, head, rows)
}

func orDash(s string) string { return console.OrDash(s) }

func versionCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.printVersion(cmd.OutOrStdout())
		},
	}
}

func (s *settings) printVersion(w io.Writer) error {
	return s.print(w, map[string]string{"version": version}, func(out io.Writer) error {
		_, err := fmt.Fprintln(out, "lnctl", version)
		return err
	})
}
