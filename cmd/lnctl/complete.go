package main

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/operator"
)

// completer offers words for an argument or a flag.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeFlag offers words for a flag of cmd, which has it.
func completeFlag(cmd *cobra.Command, flag string, fn completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, fn) // an error is that there is no such flag
}

// completed are the words that the host has; what cannot be read it has not.
func (s *settings) completed(begun string, list func(*operator.Operator) []string) ([]string, cobra.ShellCompDirective) {
	var words []string
	_ = s.with(func(c *operator.Operator) error {
		words = list(c)
		return nil
	})
	words = slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, begun) })
	slices.Sort(words)
	return slices.Compact(words), cobra.ShellCompDirectiveNoFileComp
}

// completeNetworks offers the networks of the host for the first argument.
func (s *settings) completeNetworks(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completed(begun, func(c *operator.Operator) (words []string) {
		networks, _ := c.Networks(contextOf(cmd))
		for _, n := range networks {
			words = append(words, n.Name())
		}
		return words
	})
}

// completeContainers offers the containers that have an attachment.
func (s *settings) completeContainers(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.completed(begun, func(*operator.Operator) (words []string) {
		records, _ := s.records()
		for _, r := range records {
			words = append(words, r.ContainerID)
		}
		return words
	})
}

// completeBoth offers a network, then a container.
func (s *settings) completeBoth(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return s.completeContainers(cmd, nil, begun)
	}
	return s.completeNetworks(cmd, args, begun)
}

// completeLease offers a network, then an address that it holds.
func (s *settings) completeLease(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return s.completeNetworks(cmd, args, begun)
	}
	return s.completed(begun, func(c *operator.Operator) (words []string) {
		n, err := c.Network(args[0])
		if err != nil {
			return nil
		}
		pool, _ := c.Pool(contextOf(cmd), n)
		for _, l := range pool.Leases {
			words = append(words, l.Addr.String())
		}
		return words
	})
}

// completesService has a command complete the network of its flag, and the service that it takes.
func (s *settings) completesService(cmd *cobra.Command) {
	completeFlag(cmd, "network", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return s.completeNetworks(cmd, nil, begun)
	})
	switch {
	case cmd.Name() == "create":
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	case strings.Contains(cmd.Use, " NAME"):
		cmd.ValidArgsFunction = s.completeServices
	}
}

// completeServices offers a service, of the network of the flag if that is given, then a container.
func (s *settings) completeServices(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		if len(args) == 1 && strings.Contains(cmd.Use, " CONTAINER") {
			return s.completeContainers(cmd, nil, begun)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	network, _ := cmd.Flags().GetString("network")
	return s.completed(begun, func(c *operator.Operator) (words []string) {
		all, _ := c.ListServices(contextOf(cmd), network)
		for _, f := range all {
			words = append(words, f.Name)
		}
		return words
	})
}

// completeTraced offers where a packet comes from, a container or the host, then where it goes: a
// container, or a port that is published or of a service.
func (s *settings) completeTraced(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		words, directive := s.completeContainers(cmd, nil, begun)
		if strings.HasPrefix("host", begun) {
			words = append(words, "host")
		}
		return words, directive
	case 1:
		return s.completed(begun, func(c *operator.Operator) (words []string) {
			records, _ := s.records()
			for _, r := range records {
				words = append(words, r.ContainerID)
			}
			return append(words, portsToTrace(contextOf(cmd), c)...)
		})
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// portsToTrace are the ports of containers, of the host and of services, as trace takes them.
func portsToTrace(ctx context.Context, c *operator.Operator) (words []string) {
	add := func(addr netip.Addr, port int, protocol string) {
		word := netip.AddrPortFrom(addr, uint16(port)).String()
		switch protocol {
		case "tcp":
			words = append(words, word)
		case "udp":
			words = append(words, word+"/udp")
		}
	}
	published, _ := allPorts(ctx, c)
	for _, p := range published {
		target, err := netip.ParseAddr(p.ContainerIP)
		if err != nil {
			continue
		}
		add(target, p.ContainerPort, p.Protocol)
		for _, host := range hostAddrs(p, published) {
			add(host, p.HostPort, p.Protocol)
		}
	}
	services, _ := c.ListServices(ctx, "")
	for _, f := range services {
		for _, vip := range f.VIPs {
			for _, p := range f.Ports {
				add(vip, int(p.Port), p.Protocol.String())
			}
		}
	}
	return words
}

// hostAddrs are the addresses of the host by which a published port is reached: its own, or of one
// for any those that no container has as its gateway.
func hostAddrs(p port, published []port) (all []netip.Addr) {
	own, err := netip.ParseAddr(p.HostIP)
	if err != nil || !own.IsUnspecified() {
		if err == nil {
			all = append(all, own)
		}
		return all
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		inside := func(q port) bool {
			target, err := netip.ParseAddr(q.ContainerIP)
			return err == nil && prefix.Contains(target)
		}
		if err == nil && prefix.Addr().Is4() == own.Is4() && prefix.Addr().IsGlobalUnicast() && !slices.ContainsFunc(published, inside) {
			all = append(all, prefix.Addr())
		}
	}
	return all
}

// contextOf is that of a command; completion runs without one.
func contextOf(cmd *cobra.Command) context.Context {
	return cmp.Or(cmd.Context(), context.Background())
}
