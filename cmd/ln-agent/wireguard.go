package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/agent"
)

func wireguardCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "wireguard",
		Short: "Run wireguard-go for encrypted networks, on a host whose kernel has no WireGuard",
		Long: "Run wireguard-go for each network of overlay-ln in --conf-dir that has \"encryption\", and do nothing where the\n" +
			"kernel has WireGuard. Plugins tell it keys and peers. It needs no etcd. While it does not run, nothing of these\n" +
			"networks leaves this host or comes in.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := s.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			unlock, err := lock(filepath.Join(s.stateDir, "wireguard", "agent.lock"))
			if err != nil {
				return err
			}
			defer unlock()
			u := agent.Userspace{ConfDir: s.confDir, StateDir: s.stateDir, Log: log}
			return u.Run(cmd.Context())
		},
	}
}
