package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/registry/kubernetes"
)

// kubernetesSettings are the flags about Kubernetes.
type kubernetesSettings struct {
	on         bool
	policies   bool
	kubeconfig string
	getenv     func(string) string
}

// addressVariable is where the address of this host's Node may be, for a time at which the API
// cannot be asked: a manifest sets it to status.hostIP.
const addressVariable = "NODE_IP"

func (k *kubernetesSettings) flags(f *pflag.FlagSet, getenv func(string) string) {
	k.getenv = getenv
	f.BoolVar(&k.on, "kubernetes", false, "have the hosts meet by the Nodes of a Kubernetes cluster instead of etcd; blocks are their podCIDRs")
	f.BoolVar(&k.policies, "network-policy", false, "enforce the NetworkPolicies of the cluster for this host's pods; needs --kubernetes, and the right to read pods, namespaces and networkpolicies")
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "`file` that says how the Kubernetes API is reached (default: as a pod of the cluster does)")
}

// config is how the API is reached.
func (k *kubernetesSettings) config() (*rest.Config, error) {
	if k.kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubernetes: this is no pod of a cluster: %w; see --kubeconfig", err)
		}
		return c, nil
	}
	c, err := clientcmd.BuildConfigFromFlags("", k.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", k.kubeconfig, err)
	}
	return c, nil
}

// ofEtcd are flags that say nothing to Kubernetes.
var ofEtcd = []string{"endpoints", "prefix", "cacert", "cert", "key", "user", "password-file", "live-ttl", "block-ttl"}

// withKubernetes calls fn with a registry for this host, alone.
func (s *settings) withKubernetes(cmd *cobra.Command, fn func(*kubernetes.Registry, kubernetes.Config) error) error {
	for _, name := range ofEtcd {
		if cmd.Flags().Changed(name) {
			return usagef("--%s: is about etcd, and --kubernetes uses none", name)
		}
	}
	if s.rotateEvery != 0 && s.rotateEvery < leastRotation {
		return usagef("--rotate-every %s: want 0, for never, or %s at least", s.rotateEvery, leastRotation)
	}
	if _, err := s.logger(cmd.ErrOrStderr()); err != nil {
		return err
	}
	conf := kubernetes.Config{Node: s.nodeName, Version: version}
	if conf.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("host name: %w; see --node-name", err)
		}
		conf.Node = strings.ToLower(host) // as kubelet does
	}
	if !model.ValidName(conf.Node) {
		return usagef("--node-name %q: want the name of this host's Node", conf.Node)
	}
	var err error
	if conf.REST, err = s.kube.config(); err != nil {
		return err
	}
	reg, err := kubernetes.New(conf)
	if err != nil {
		return err
	}
	unlock, err := lock(agent.LockPath(s.stateDir))
	if err != nil {
		return err
	}
	defer unlock()
	if conf.Address, err = s.nodeAddressOf(cmd.Context(), reg, conf); err != nil {
		return err
	}
	reg.At(conf.Address)
	return fn(reg, conf)
}

// addressPatience is how long the API may take to say which address this host has.
const addressPatience = 3 * time.Second

// nodeAddressOf returns the address at which other hosts reach this one: by --node-address, by its
// Node, or where the API cannot be asked, by the environment or the way to the API.
func (s *settings) nodeAddressOf(ctx context.Context, reg *kubernetes.Registry, conf kubernetes.Config) (a netip.Addr, err error) {
	text := s.nodeAddress
	if text == "" {
		ctx, cancel := context.WithTimeout(ctx, addressPatience)
		defer cancel()
		if a, err = reg.Address(ctx); err == nil || errors.Is(err, kubernetes.ErrNoNode) {
			return a, err
		}
		text = s.kube.getenv(addressVariable)
	}
	if text == "" {
		if away, wayErr := wayOut([]string{conf.REST.Host}); wayErr == nil {
			return away, nil
		}
		return a, err
	}
	a, err = netip.ParseAddr(text)
	if err != nil || !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
		return a, usagef("--node-address %q: want an address of this host at which the others reach it (%v)", text, err)
	}
	return a, nil
}

func (s *settings) runKubernetes(ctx context.Context, cmd *cobra.Command) error {
	return s.withKubernetes(cmd, func(reg *kubernetes.Registry, conf kubernetes.Config) error {
		a, err := s.kubernetesAgent(reg, conf, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

func (s *settings) kubernetesAgent(reg *kubernetes.Registry, conf kubernetes.Config, stderr io.Writer) (*agent.Agent, error) {
	log, _ := s.logger(stderr) // it was made before
	answers, err := s.names.service(s.stateDir, log)
	if err != nil {
		return nil, err
	}
	calls, err := s.calls(conf.Node, log)
	if err != nil {
		return nil, err
	}
	policies, err := s.networkPolicies(reg, conf, log)
	if err != nil {
		return nil, err
	}
	return agent.New(agent.Config{
		Policies: policies,
		Calls:    calls, Graph: s.graph(conf.Node), ConfDir: s.confDir, Name: conf.Node, Address: conf.Address, Listen: s.listen, StateDir: s.stateDir,
		Registry: reg, RegistryName: "Kubernetes", Names: answers, Log: log,
		Keys: reg, RunWireGuard: s.runWireGuard(stderr), RotateEvery: s.rotateEvery,
	}), nil
}

// leaveKubernetes is leave without etcd.
func (s *settings) leaveKubernetes(ctx context.Context, only []string, force agent.Force, cmd *cobra.Command) error {
	return s.withKubernetes(cmd, func(reg *kubernetes.Registry, conf kubernetes.Config) error {
		return s.leave(ctx, agent.Leaving{Only: only, Force: force, Node: conf.Node, Registry: reg}, cmd.ErrOrStderr())
	})
}
