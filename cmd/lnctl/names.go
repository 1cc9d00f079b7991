package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/state"
)

// namedEndpoint is an attachment to a network that has names.
type namedEndpoint struct {
	Network   string       `json:"network"`
	Names     []string     `json:"names"`
	Addresses []netip.Addr `json:"addresses"`
	Domain    string       `json:"domain,omitempty"`
	Container string       `json:"container"`
	Interface string       `json:"interface"`
}

func namesCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "names",
		Short: "List the names of this host's containers, or ask for one as a container would",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.listNames(cmd.OutOrStdout()) },
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the names of this host's containers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.listNames(cmd.OutOrStdout()) },
	}
	stats := &cobra.Command{
		Use:   "stats",
		Short: "Count the queries that the kernel has read, on networks with the responder bpf",
		Long: "Count the queries for names that the kernel has read since it began to answer, on networks with the\n" +
			"responder bpf or auto. Foreign ones went on, to ln-agent or to their server. What ln-agent answers is in\n" +
			"its metrics.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.countNames(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.AddCommand(list, resolveCommand(s), stats)
	return cmd
}

func (s *settings) countNames(ctx context.Context, out io.Writer) error {
	if err := permitted(); err != nil {
		return err
	}
	c, err := operator.CountNames(ctx, s.stateDir)
	if err != nil {
		return err
	}
	return s.print(out, c, func(out io.Writer) error {
		return table(out, []string{"OUTCOME", "QUERIES"}, [][]string{
			{"answered", strconv.FormatUint(c.Answered, 10)}, {"nodata", strconv.FormatUint(c.NoData, 10)}, {"foreign", strconv.FormatUint(c.Foreign, 10)},
		})
	})
}

func (s *settings) listNames(out io.Writer) error {
	records, err := s.records()
	all := []namedEndpoint{}
	for _, r := range records {
		if r.Names != nil && r.Phase == state.PhaseReady {
			all = append(all, namedEndpoint{
				Network: r.Network, Names: r.Names.Own, Addresses: addressesOf(r), Domain: r.Names.Domain, Container: r.ContainerID, Interface: r.IfName,
			})
		}
	}
	return errors.Join(err, s.print(out, all, func(out io.Writer) error {
		var rows [][]string
		for _, e := range all {
			rows = append(rows, []string{e.Network, strings.Join(e.Names, ","), joined(e.Addresses), e.Domain, e.Container})
		}
		return table(out, []string{"NETWORK", "NAMES", "ADDRESSES", "DOMAIN", "CONTAINER"}, rows)
	}))
}

// records returns those of all attachments, in the order of network and container,
// and what could not be read.
func (s *settings) records() ([]state.Endpoint, error) {
	if err := permitted(); err != nil {
		return nil, err
	}
	dir := state.New(s.stateDir)
	networks, err := dir.EndpointNetworks()
	slices.Sort(networks)
	var all []state.Endpoint
	for _, n := range networks {
		of, readErr := dir.Endpoints(n)
		slices.SortFunc(of, func(a, b state.Endpoint) int {
			return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.IfName, b.IfName))
		})
		all, err = append(all, of...), errors.Join(err, readErr)
	}
	return all, err
}

func addressesOf(r state.Endpoint) (all []netip.Addr) {
	for _, a := range r.Addresses {
		all = append(all, a.Prefix.Addr())
	}
	return all
}

func joined[T fmt.Stringer](all []T) string {
	var text []string
	for _, v := range all {
		text = append(text, v.String())
	}
	return strings.Join(text, ",")
}

// resolving is what resolve asks.
type resolving struct {
	as     string
	server string
	wait   time.Duration
}

func resolveCommand(s *settings) *cobra.Command {
	var r resolving
	cmd := &cobra.Command{
		Use:   "resolve --as CONTAINER NAME|ADDRESS",
		Short: "Ask for a name, or for the name of an address, out of a container's network namespace",
		Long: "Send a query out of a container's network namespace, as its programs do, and print the answer.\n" +
			"The container is given by its ID, the beginning of it, or one of its names. The name is complete: no\n" +
			"search list is used. Without ln-agent the query goes to the server like any other.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want one NAME or ADDRESS; see lnctl names resolve --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.as == "" {
				return usageError{errors.New("--as: want the container that asks, by its ID or a name of it")}
			}
			answers, err := s.resolve(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), answers, func(out io.Writer) error {
				_, err := fmt.Fprintln(out, strings.Join(answers, "\n"))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&r.as, "as", "", "`container` that asks")
	completeFlag(cmd, "as", s.completeContainers)
	cmd.Flags().StringVar(&r.server, "server", "", "`address` of the server that is asked (default: the gateway of a network with names)")
	cmd.Flags().DurationVar(&r.wait, "timeout", 5*time.Second, "how long to wait for an answer")
	return cmd
}

// resolve returns the answers to a query of a container, in order.
func (s *settings) resolve(ctx context.Context, r resolving, name string) ([]string, error) {
	rec, err := s.asker(r.as)
	if err != nil {
		return nil, err
	}
	server := r.server
	for _, a := range rec.Addresses {
		if server == "" && a.Gateway.IsValid() {
			server = a.Gateway.String()
		}
	}
	if server == "" {
		return nil, usageError{fmt.Errorf("--server: network %s has no gateway to be asked: want the address of a server", rec.Network)}
	}
	if _, err := netip.ParseAddr(server); err != nil {
		return nil, usageError{fmt.Errorf("--server %q: want an address", server)}
	}
	ns, err := netns.Open(rec.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(server, "53"))
			return err
		})
		return c, err
	}}
	var answers []string
	if _, notAddress := netip.ParseAddr(name); notAddress == nil {
		answers, err = resolver.LookupAddr(ctx, name)
	} else {
		answers, err = resolver.LookupHost(ctx, strings.TrimSuffix(name, ".")+".")
	}
	slices.Sort(answers)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		dns.Server = "" // of this host's resolv.conf, which was not asked
	}
	if err != nil {
		return nil, fmt.Errorf("as %s (%s), asking %s: %w", r.as, rec.ContainerID, server, err)
	}
	return answers, nil
}

// asker returns an attachment of the container that is meant, to a network with names
// if it has one.
func (s *settings) asker(as string) (state.Endpoint, error) {
	records, err := s.records()
	var found []state.Endpoint
	for _, r := range records {
		named := r.Names != nil && slices.ContainsFunc(r.Names.Own, func(n string) bool { return strings.EqualFold(n, as) })
		if r.Phase == state.PhaseReady && (named || strings.HasPrefix(r.ContainerID, as)) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b state.Endpoint) int { return rank(a) - rank(b) })
	switch {
	case len(found) == 0:
		return state.Endpoint{}, errors.Join(usageError{fmt.Errorf("--as %q: there is no such container; lnctl names list has those with names", as)}, err)
	case slices.ContainsFunc(found, func(r state.Endpoint) bool { return r.ContainerID != found[0].ContainerID }):
		return state.Endpoint{}, usageError{fmt.Errorf("--as %q: is more than one container: want an ID", as)}
	}
	return found[0], nil
}

// rank puts attachments with names first.
func rank(r state.Endpoint) int {
	if r.Names != nil {
		return 0
	}
	return 1
}
