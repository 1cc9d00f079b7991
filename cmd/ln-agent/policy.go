package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/enforce"
	"github.com/libnet-cni/libnet/internal/registry/kubernetes"
)

// networkPolicies returns what enforces policies; nil: nothing does. Then what an earlier agent
// enforced goes: no agent would open the ports of new pods.
func (s *settings) networkPolicies(reg *kubernetes.Registry, conf kubernetes.Config, log *slog.Logger) (*enforce.Enforcer, error) {
	if !s.kube.policies {
		removed, err := enforce.Remove(context.Background(), s.stateDir)
		if removed {
			log.Warn("network policies are not enforced any more, as --network-policy is not given: their rules are removed")
		}
		return nil, err
	}
	dirs := []string{s.stateDir}
	networks, _ := agent.ReadConfDir(s.confDir) // the agent tells of what it cannot read
	for _, n := range networks {
		if dir := cmp.Or(n.StateDir, s.stateDir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return enforce.New(enforce.Config{
		Node: conf.Node, StateDirs: dirs, Log: log,
		Watch: func(ctx context.Context, to *enforce.Enforcer) error { return reg.Feed(ctx, to) },
	}), nil
}
