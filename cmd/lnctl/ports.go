package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/service"
)

// port is a published port, or a range of them.
type port struct {
	Protocol      string   `json:"protocol"`
	HostIP        string   `json:"hostIP,omitempty"`   // missing: reached by the container's own address
	HostPort      int      `json:"hostPort,omitempty"` // with HostIP
	HostPortEnd   int      `json:"hostPortEnd,omitempty"`
	ContainerIP   string   `json:"containerIP"`
	ContainerPort int      `json:"containerPort"`
	ContainerEnd  int      `json:"containerPortEnd,omitempty"`
	Sources       []string `json:"sourceRanges,omitempty"`
	Network       string   `json:"network"`
	Container     string   `json:"container"`
	Interface     string   `json:"interface"`
	Backend       string   `json:"backend,omitempty"`
	By            string   `json:"by"`
	Standby       bool     `json:"standby,omitempty"` // another attachment of the container has it
	condition

	host, target string // as a table has them
}

// A published port is known by the program that published it.
const (
	byNetwork   = "bridge-ln"
	byPublisher = "portmap-ln"
	byService   = "lnctl service"
)

// portsCommand is of lnctl itself; the same is "port ls".
func portsCommand(s *settings) *cobra.Command { return listPortsCommand(s, "ports") }

func portCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "port",
		Short: "List published ports",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listPortsCommand(s, "ls"))
	return cmd
}

func listPortsCommand(s *settings, use string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: "List published ports, which no program listens on and ss does not show",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *operator.Operator) error {
				all, err := allPorts(cmd.Context(), c)
				return errors.Join(s.print(cmd.OutOrStdout(), all, func(out io.Writer) error { return listPorts(out, all) }), err)
			})
		},
	}
}

// allPorts returns every published port of the host, the lowest first.
func allPorts(ctx context.Context, c *operator.Operator) ([]port, error) {
	all := []port{}
	networks, err := c.Networks(ctx)
	errs := []error{err}
	for _, n := range networks {
		errs = append(errs, n.WalkEndpoints(ctx, func(e *engine.Endpoint) bool {
			all = append(all, portsOf(c.Inspect(e), byNetwork)...)
			return true
		}))
	}
	published, err := c.Publications(ctx)
	for _, a := range published {
		by := byPublisher
		if _, is := service.OfLease(a.ID.ContainerID, a.ID.IfName); is {
			by = byService
		}
		all = append(all, portsOf(a, by)...)
	}
	slices.SortStableFunc(all, func(a, b port) int { return a.HostPort - b.HostPort })
	return all, errors.Join(append(errs, err)...)
}

func portsOf(a operator.Attachment, by string) []port {
	var all []port
	for _, p := range a.Ports {
		out := port{
			Protocol: p.Protocol, HostPort: p.HostPort, HostPortEnd: p.HostPortEnd,
			ContainerIP: p.Target.String(), ContainerPort: p.TargetPort, ContainerEnd: p.TargetPortEnd,
			Network: a.ID.Network, Container: a.ID.ContainerID, Interface: a.ID.IfName,
			Backend: string(a.Backend), By: by, Standby: p.Standby, condition: conditionOf(a),
			host: "-", target: console.Where(p.Target, p.TargetPort, p.TargetPortEnd),
		}
		if p.Sources != nil {
			out.Sources = texts(p.Sources)
		}
		if p.Host.IsValid() {
			out.HostIP, out.host = p.Host.String(), console.Where(p.Host, p.HostPort, p.HostPortEnd)
		}
		all = append(all, out)
	}
	return all
}

// stateText is "alive", or "alive, standby" where the port leads to another
// attachment of the container.
func (p port) stateText() string {
	if p.Standby {
		return p.text() + ", standby"
	}
	return p.text()
}

func listPorts(out io.Writer, all []port) error {
	var rows [][]string
	for _, p := range all {
		sources := "any source"
		if p.Sources != nil {
			sources = strings.Join(p.Sources, ", ")
		}
		rows = append(rows, []string{p.host, p.Protocol, p.target, sources, p.Network, p.Container, orDash(p.Backend), p.By, p.stateText()})
	}
	return table(out, []string{"HOST", "PROTOCOL", "CONTAINER ADDRESS", "FOR", "NETWORK", "CONTAINER", "RULES", "BY", "STATE"}, rows)
}
