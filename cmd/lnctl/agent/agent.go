// Package agent is the commands "lnctl agent", which ask ln-agent what it knows.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/diagnostics"
)

// Host is what the commands have of lnctl.
type Host struct {
	*console.Output
	StateDir  *string
	Permitted func() error
}

// Command is "lnctl agent".
func Command(h Host) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Ask ln-agent of this host what it knows: its state, networks, peers and blocks",
		Long: "Ask ln-agent of this host what it knows. It answers at a socket that root alone reaches, STATEDIR/overlay/http.sock, and nothing\n" +
			"can be changed there. The same socket has the page of lnctl graph, live, for a browser:\n" +
			"ssh -L 8080:/run/libnet/overlay/http.sock HOST, and then http://localhost:8080.",
		Args: console.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		command(h, "status", "Say whether ln-agent is well, and what it does", func(s diagnostics.Status, out io.Writer) error { return writeStatus(out, s) }),
		command(h, "networks", "List the networks that ln-agent keeps", func(all []diagnostics.Network, out io.Writer) error { return writeNetworks(out, all) }),
		command(h, "peers", "List the other hosts of each network", func(all []diagnostics.Peer, out io.Writer) error { return writePeers(out, all) }),
		command(h, "blocks", "List the blocks of each network, and the hosts that have them", func(all []diagnostics.Block, out io.Writer) error { return writeBlocks(out, all) }),
	)
	return cmd
}

// command asks for what has its name.
func command[T any](h Host, name, short string, text func(T, io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: console.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := h.Permitted(); err != nil {
				return err
			}
			var v T
			if err := ask(cmd.Context(), *h.StateDir, name, &v); err != nil {
				return err
			}
			err := h.Print(cmd.OutOrStdout(), v, func(out io.Writer) error { return text(v, out) })
			if s, is := any(v).(diagnostics.Status); is && len(s.Problems) > 0 {
				err = errors.Join(err, fmt.Errorf("ln-agent has %d problems", len(s.Problems)))
			}
			return err
		},
	}
}

func ask(ctx context.Context, stateDir, name string, to any) error {
	err := diagnostics.Get(ctx, diagnostics.Socket(stateDir), "/v1/"+name, to)
	if errors.Is(err, diagnostics.ErrAway) {
		return fmt.Errorf("%w; without overlay networks of etcd or Kubernetes, names and services none is needed; else start it: systemctl start ln-agent", err)
	}
	return err
}

func writeStatus(out io.Writer, s diagnostics.Status) error {
	registry := "none: it answers for this host alone"
	switch {
	case s.Registry != "" && s.Connected:
		registry = s.Registry + ", connected"
	case s.Registry != "":
		registry = s.Registry + ", NOT connected"
	}
	rows := [][]string{
		{"node", console.OrDash(s.Node)}, {"address", console.OrDash(s.Address)}, {"since", s.Started.Local().Format(time.DateTime)},
		{"registry", registry}, {"tasks", console.OrDash(strings.Join(s.Tasks, ", "))}, {"networks", fmt.Sprint(s.Networks)}, {"peers", fmt.Sprint(s.Peers)},
	}
	for i, p := range s.Problems {
		about := ""
		if i == 0 {
			about = "problems"
		}
		rows = append(rows, []string{about, console.Paint(out, console.Red, p)})
	}
	if len(s.Problems) == 0 {
		rows = append(rows, []string{"problems", "none"})
	}
	return console.WriteTable(out, []string{"LN-AGENT", ""}, rows)
}

func writeNetworks(out io.Writer, all []diagnostics.Network) error {
	var rows [][]string
	for _, n := range all {
		kind := "vxlan"
		if n.VNI != 0 {
			kind += fmt.Sprintf(" %d", n.VNI)
		}
		if n.Encryption != "" {
			kind = n.Encryption
			if n.KeyEpoch > 0 {
				kind += fmt.Sprintf(", keys %d", n.KeyEpoch)
			}
		}
		used := "-"
		if n.Capacity > 0 {
			used = fmt.Sprintf("%s %d of %d", console.Bar(n.Held, n.Capacity), n.Held, n.Capacity)
		}
		state := "ok"
		if len(n.Problems) > 0 {
			state = strings.Join(n.Problems, "; ")
		}
		rows = append(rows, []string{n.Name, strings.Join(n.Subnets, ", "), kind, console.OrDash(strings.Join(n.Blocks, ", ")), used, fmt.Sprintf("%d of %d", n.Programmed, n.Peers), state})
	}
	return list(out, "no network: the configurations leave none to ln-agent", []string{"NETWORK", "SUBNETS", "TUNNEL", "BLOCKS HERE", "ADDRESSES USED", "PEERS READY", "STATE"}, rows)
}

func writePeers(out io.Writer, all []diagnostics.Peer) error {
	var rows [][]string
	for _, p := range all {
		rows = append(rows, []string{p.Network, p.Node, p.Address, console.OrDash(strings.Join(p.Blocks, ", ")), heard(p.Live)})
	}
	return list(out, "no other host has a part in a network of this one", []string{"NETWORK", "NODE", "ADDRESS", "BLOCKS", "HEARD OF"}, rows)
}

func writeBlocks(out io.Writer, all []diagnostics.Block) error {
	var rows [][]string
	for _, b := range all {
		node := b.Node
		if b.Own {
			node += " (this host)"
		}
		rows = append(rows, []string{b.Network, b.Block, node, heard(b.Live)})
	}
	return list(out, "no host has a block", []string{"NETWORK", "BLOCK", "NODE", "HEARD OF"}, rows)
}

func heard(live bool) string {
	if live {
		return "yes"
	}
	return "not lately"
}

func list(out io.Writer, none string, head []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, none)
		return err
	}
	return console.WriteTable(out, head, rows)
}
