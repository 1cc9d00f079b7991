package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/enforce"
	"github.com/libnet-cni/libnet/internal/install"
	"github.com/libnet-cni/libnet/internal/registry/kubernetes"
)

// installSettings are the flags of install and uninstall.
type installSettings struct{ from, binDir, conf string }

const defaultConf = "/etc/libnet/10-libnet.conflist"

func (i *installSettings) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&i.binDir, "bin-dir", "/opt/cni/bin", "`directory` of the runtime's plugins")
	cmd.Flags().StringVar(&i.conf, "conf", defaultConf, "`file` that is the configuration; the copy in --conf-dir has its name")
}

func (i *installSettings) files(confDir string) (install.Files, error) {
	f := install.Files{From: i.from, BinDir: i.binDir, Conf: i.conf, ConfDir: confDir}
	if f.From == "" {
		self, err := os.Executable()
		if err != nil {
			return f, err
		}
		f.From = filepath.Dir(self)
	}
	return f, nil
}

func installCommand(s *settings) *cobra.Command {
	var i installSettings
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Copy the plugins and a configuration to where the runtime looks for them",
		Long: "Copy the plugins to --bin-dir and then the configuration --conf to --conf-dir, so that a runtime sees each whole,\n" +
			"and no configuration before the plugins that it names. Files that are there already stay as they are.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := i.files(s.confDir)
			if err != nil {
				return err
			}
			done, err := f.Install()
			tell(cmd.OutOrStdout(), "installed", done)
			for _, path := range done.Hiding {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "ln-agent: %s comes before %s by name: Kubernetes' runtimes take the first one only\n", path, filepath.Base(i.conf))
			}
			return err
		},
	}
	i.flags(cmd)
	cmd.Flags().StringVar(&i.from, "from", "", "`directory` that has the plugins (default: that of ln-agent)")
	return cmd
}

func uninstallCommand(s *settings) *cobra.Command {
	var i installSettings
	var force bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the configuration, this host's part in all networks, and the plugins away",
		Long: "Remove the configuration, so that the runtime starts no more containers on the network; leave all networks, which\n" +
			"needs --kubernetes; and remove the plugins. No agent may be at work, and no container be left, unless --force is given:\n" +
			"without the plugins a runtime cannot remove containers.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !s.kube.on {
				return usagef("uninstall: want --kubernetes; with etcd, run ln-agent leave, and remove the files by hand")
			}
			f, err := i.files(s.confDir)
			if err != nil {
				return err
			}
			return s.withKubernetes(cmd, func(reg *kubernetes.Registry, conf kubernetes.Config) error {
				return s.uninstall(cmd.Context(), f, agent.Leaving{Force: agent.Force(force), Node: conf.Node, Registry: reg}, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	i.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also with living containers, which are cut off, and cannot be removed any more")
	return cmd
}

// uninstall leaves the plugins where a network cannot be left.
func (s *settings) uninstall(ctx context.Context, f install.Files, l agent.Leaving, stdout, stderr io.Writer) error {
	networks, _ := agent.ReadConfDir(s.confDir) // as they are configured still: their stateDir is in there
	if before, err := agent.ReadConfFile(f.Kept()); err == nil {
		networks = append(networks, before...) // an earlier try has removed the configuration
	}
	done, err := f.RemoveConf()
	tell(stdout, "removed", done)
	if err != nil {
		return err
	}
	if l.Log, err = s.logger(stderr); err != nil {
		return err
	}
	l.Networks, l.StateDir = networks, s.stateDir
	if err := l.Leave(ctx); err != nil {
		return err
	}
	if _, err := enforce.Remove(ctx, s.stateDir); err != nil {
		return err
	}
	done, err = f.RemovePlugins()
	tell(stdout, "removed", done)
	return err
}

func tell(w io.Writer, what string, done install.Done) {
	for _, path := range done.Changed {
		_, _ = fmt.Fprintln(w, what, path)
	}
}
