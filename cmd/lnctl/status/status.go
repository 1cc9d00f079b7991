// Package status is what lnctl says without a command: where this host stands, on one screen.
package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/naming"
	"github.com/libnet-cni/libnet/internal/operator"
)

// Host is what the command has of lnctl.
type Host struct {
	*console.Output
	With     func(func(*operator.Operator) error) error
	StateDir *string
	Version  string
	// Problems counts the findings of doctor that are no good, and says the first.
	Problems func(context.Context, *operator.Operator) (count int, first string)
}

// standing is where a host stands.
type standing struct {
	Node     string    `json:"node"`
	Version  string    `json:"version"`
	Kernel   string    `json:"kernel"`
	Agent    bool      `json:"agent"` // ln-agent runs
	Networks []network `json:"networks"`
	Problems int       `json:"problems"`
	First    string    `json:"firstProblem,omitempty"`
}

type network struct {
	Name      string   `json:"name"`
	Driver    string   `json:"driver"`
	Subnets   []string `json:"subnets"`
	Endpoints int      `json:"endpoints"`
	Dead      int      `json:"dead"`
	Ports     int      `json:"ports"`
	// Held of Capacity addresses are in use, or rest after their release.
	Held     uint64 `json:"held"`
	Capacity uint64 `json:"capacity"`
}

// Command is "lnctl status".
func Command(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say where this host stands: networks, how full they are, and how many problems doctor finds",
		Args:  console.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return h.Print(cmd) },
	}
}

// Print prints where the host stands. Problems are no error: lnctl doctor tells of them.
func (h Host) Print(cmd *cobra.Command) error {
	return h.With(func(o *operator.Operator) error {
		s, err := h.look(cmd.Context(), o)
		return errors.Join(h.Output.Print(cmd.OutOrStdout(), s, s.write), err)
	})
}

func (h Host) look(ctx context.Context, o *operator.Operator) (standing, error) {
	s := standing{Version: h.Version, Networks: []network{}}
	var uts unix.Utsname
	err := unix.Uname(&uts)
	s.Node, s.Kernel = unix.ByteSliceToString(uts.Nodename[:]), unix.ByteSliceToString(uts.Release[:])
	s.Agent = agentRuns(*h.StateDir)
	networks, listErr := o.Networks(ctx)
	errs := []error{err, listErr}
	for _, n := range networks {
		one, err := look(ctx, o, n)
		s.Networks, errs = append(s.Networks, one), append(errs, err)
	}
	s.Problems, s.First = h.Problems(ctx, o)
	return s, errors.Join(errs...)
}

func look(ctx context.Context, o *operator.Operator, n *engine.Network) (network, error) {
	one := network{Name: n.Name(), Driver: n.Driver(), Subnets: []string{}}
	endpoints, err := n.Endpoints(ctx)
	for _, u := range operator.SubnetsOf(n, endpoints) {
		one.Subnets = append(one.Subnets, u.Subnet.String())
	}
	for _, e := range endpoints {
		a := o.Inspect(e)
		one.Endpoints++
		one.Ports += len(e.Record().Ports)
		if a.Life == operator.Dead {
			one.Dead++
		}
	}
	pool, poolErr := o.Pool(ctx, n)
	if errors.Is(poolErr, operator.ErrNoPool) {
		poolErr = nil
	}
	for _, set := range pool.Sets { // of both families the smaller one is what runs out
		if one.Capacity == 0 || set.Capacity < one.Capacity {
			one.Held, one.Capacity = set.Held+set.Cooling, set.Capacity
		}
	}
	return one, errors.Join(err, poolErr)
}

func (s standing) write(out io.Writer) error {
	agent := "no ln-agent"
	if s.Agent {
		agent = "ln-agent runs"
	}
	_, err := fmt.Fprintf(out, "%s · libnet %s · kernel %s · %s\n\n", s.Node, s.Version, s.Kernel, agent)
	errs := []error{err}
	var rows [][]string
	for _, n := range s.Networks {
		used := "-"
		if n.Capacity > 0 {
			used = fmt.Sprintf("%s %d of %d", console.Bar(n.Held, n.Capacity), n.Held, n.Capacity)
		}
		endpoints := fmt.Sprint(n.Endpoints)
		if n.Dead > 0 {
			endpoints += fmt.Sprintf(" (%d dead)", n.Dead)
		}
		rows = append(rows, []string{n.Name, n.Driver, console.OrDash(strings.Join(n.Subnets, ", ")), endpoints, fmt.Sprint(n.Ports), used})
	}
	if len(rows) == 0 {
		_, err = fmt.Fprintln(out, "no network yet: the first container of a configuration makes it (lnctl network create)")
	} else {
		err = console.WriteTable(out, []string{"NETWORK", "DRIVER", "SUBNETS", "ENDPOINTS", "PORTS", "ADDRESSES USED"}, rows)
	}
	errs = append(errs, err)
	if s.Problems == 0 {
		_, err = fmt.Fprintf(out, "\n%s no problems\n", console.Paint(out, console.Green, "✓"))
	} else {
		_, err = fmt.Fprintf(out, "\n%s %d found by lnctl doctor; the first: %s\n", console.Paint(out, console.Red, "✗"), s.Problems, s.First)
	}
	return errors.Join(append(errs, err)...)
}

// agentRuns says whether ln-agent answers for names, or to lnctl.
func agentRuns(stateDir string) bool {
	if is, err := naming.AgentAnswers(); is && err == nil {
		return true
	}
	c, err := net.Dial("unix", filepath.Join(stateDir, "overlay", "agent.sock"))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
