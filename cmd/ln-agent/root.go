package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/mesh"
	"github.com/libnet-cni/libnet/internal/names"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/registry/etcd"
)

// settings are the flags.
type settings struct {
	confDir, stateDir     string
	nodeName, nodeAddress string
	listen                string
	logLevel, logFormat   string
	etcd                  etcdSettings
	liveTTL, blockTTL     time.Duration
	local                 bool
	kube                  kubernetesSettings
	names                 nameSettings
	rotateEvery           time.Duration
	healAfter             time.Duration
}

// usageError is a command line that cannot be.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func rootCommand(getenv func(string) string) *cobra.Command {
	var s settings
	root := &cobra.Command{
		Use:   "ln-agent",
		Short: "Keep the overlay networks of this host, together with those of other hosts, by etcd or Kubernetes",
		Long: "Keep the networks of overlay-ln whose configuration has no \"nodes\": lease this host's blocks of them in etcd,\n" +
			"follow the other hosts, and program the ways to them. Running containers stay connected when the agent stops.\n" +
			"With --kubernetes the blocks are the podCIDRs of the cluster's Nodes, and there is no etcd.\n" +
			"Answer DNS queries for the names of containers on networks with \"names\": with --local without etcd, for this host.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case s.local && s.kube.on:
				return usagef("--local and --kubernetes: want one of them")
			case s.kube.policies && !s.kube.on:
				return usagef("--network-policy: needs --kubernetes: NetworkPolicies are of a cluster")
			case s.local:
				return s.runLocal(cmd.Context(), cmd.ErrOrStderr())
			case s.kube.on:
				return s.runKubernetes(cmd.Context(), cmd)
			}
			return s.with(func(reg *etcd.Registry, self etcd.Self) error {
				a, err := s.agent(reg, self, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				return a.Run(cmd.Context())
			}, cmd.ErrOrStderr())
		},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	s.flags(root.PersistentFlags(), getenv)
	root.Flags().StringVar(&s.listen, "listen", "127.0.0.1:9468", "`address` to serve /healthz and /metrics at; empty: nowhere")
	root.Flags().BoolVar(&s.local, "local", false, "answer for names of containers of this host only; no etcd, no overlay networks")
	root.Flags().DurationVar(&s.rotateEvery, "rotate-every", 0, "after which time the keys of encrypted networks are changed; 0: only by lnctl overlay rotate-keys")
	root.Flags().DurationVar(&s.healAfter, "heal-after", time.Minute, "after how long out of reach of a host that lives the keys of an encrypted network are changed; 0: never")
	s.names.flags(root.Flags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(leaveCommand(&s), wireguardCommand(&s), installCommand(&s), uninstallCommand(&s), versionCommand())
	return root
}

func (s *settings) flags(f *pflag.FlagSet, getenv func(string) string) {
	f.StringVar(&s.confDir, "conf-dir", "/etc/cni/net.d", "`directory` of the CNI configurations")
	f.StringVar(&s.stateDir, "state-dir", engine.DefaultStateDir, "`directory` of the agent's lock, and of networks that name no stateDir")
	f.StringVar(&s.nodeName, "node-name", "", "this host's `name` among the others (default: the host name)")
	f.StringVar(&s.nodeAddress, "node-address", "", "`address` at which the other hosts reach this one (default: that of the way to etcd)")
	f.DurationVar(&s.liveTTL, "live-ttl", 30*time.Second, "after how long without a word this host's name and address are free")
	f.DurationVar(&s.blockTTL, "block-ttl", 24*time.Hour, "after how long without a word this host's blocks are free; 0: never")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
	s.etcd.flags(f, getenv)
	s.kube.flags(f, getenv)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown argument %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

// leastTTL is what etcd keeps a lease for, at least.
const leastTTL = 3 * time.Second

// leastRotation is as long as a change of keys may take under load, and some more.
const leastRotation = 10 * time.Second

// leastHealing is as long as it takes to see whether a peer that was made anew answers.
const leastHealing = 5 * time.Second

// with calls fn with a registry for this host, alone: two agents on one host
// would each undo what the other does.
func (s *settings) with(fn func(*etcd.Registry, etcd.Self) error, stderr io.Writer) error {
	switch {
	case s.liveTTL < leastTTL:
		return usagef("--live-ttl %s: want %s at least", s.liveTTL, leastTTL)
	case s.rotateEvery != 0 && s.rotateEvery < leastRotation:
		return usagef("--rotate-every %s: want 0, for never, or %s at least", s.rotateEvery, leastRotation)
	case s.healAfter != 0 && s.healAfter < leastHealing:
		return usagef("--heal-after %s: want 0, for never, or %s at least", s.healAfter, leastHealing)
	case s.blockTTL != 0 && s.blockTTL < s.liveTTL:
		return usagef("--block-ttl %s: want 0, or --live-ttl (%s) at least", s.blockTTL, s.liveTTL)
	}
	if _, err := s.logger(stderr); err != nil {
		return err
	}
	conf, err := s.etcd.config()
	if err != nil {
		return err
	}
	self, err := s.self()
	if err != nil {
		return err
	}
	unlock, err := lock(agent.LockPath(s.stateDir))
	if err != nil {
		return err
	}
	defer unlock()
	conf.Also = func() []netip.Addr { return alsoOf(self.Address) }
	conf.Self, conf.Live, conf.Hold, conf.Uptime = self, s.liveTTL, s.blockTTL, nodefile.Uptime
	return fn(etcd.New(conf), self)
}

func (s *settings) agent(reg *etcd.Registry, self etcd.Self, stderr io.Writer) (*agent.Agent, error) {
	log, _ := s.logger(stderr) // it was made before
	answers, err := s.names.service(s.stateDir, log)
	if err != nil {
		return nil, err
	}
	services := mesh.New(mesh.Config{Node: self.Name, Registry: reg, Log: log})
	reg.Exchange(heard{answers, services})
	reg.Serve(services)
	return agent.New(agent.Config{
		ConfDir: s.confDir, Name: self.Name, Address: self.Address, Listen: s.listen, StateDir: s.stateDir, Registry: reg, Names: answers, ShareNames: true, Log: log,
		Services: services, Keys: reg, RunWireGuard: s.runWireGuard(stderr), RotateEvery: s.rotateEvery, HealAfter: s.healAfter,
	}), nil
}

// heard hands on what other hosts have to names and to services.
type heard struct {
	*names.Service
	services *mesh.Mesh
}

// Others is as of etcd.Names.
func (h heard) Others(these []overlay.Named, all bool) {
	h.Service.Others(these, all)
	h.services.Others(these, all)
}

func (s *settings) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", s.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usagef("--log-format %q: want text or json", s.logFormat)
}

// lock keeps a second agent out until unlock is called, or the process ends.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("ln-agent is at work on this host: it must be stopped first")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func leaveCommand(s *settings) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [network...]",
		Short: "Give this host's blocks back, of all networks or of some, and take their tunnels away",
		RunE: func(cmd *cobra.Command, only []string) error {
			if s.kube.on {
				return s.leaveKubernetes(cmd.Context(), only, agent.Force(force), cmd)
			}
			return s.with(func(reg *etcd.Registry, self etcd.Self) error {
				return s.leave(cmd.Context(), agent.Leaving{Only: only, Force: agent.Force(force), Node: self.Name, Registry: reg}, cmd.ErrOrStderr())
			}, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also of networks that have living containers here, which are cut off")
	return cmd
}

func (s *settings) leave(ctx context.Context, l agent.Leaving, stderr io.Writer) error {
	networks, confErr := agent.ReadConfDir(s.confDir)
	log, err := s.logger(stderr)
	if err != nil {
		return err
	}
	if confErr != nil {
		log.Warn("configurations that cannot be used", "error", confErr)
	}
	l.Networks, l.StateDir, l.Log = networks, s.stateDir, log
	return l.Leave(ctx)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "ln-agent", version)
			return err
		},
	}
}
