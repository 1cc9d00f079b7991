package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/service"
)

// shownService is a service as ls and inspect print it.
type shownService struct {
	Network  string         `json:"network"`
	Name     string         `json:"name"`
	Select   string         `json:"select"`
	VIPs     []netip.Addr   `json:"vips"`
	Affinity string         `json:"affinity"`
	Ports    []shownPort    `json:"ports"`
	Publish  []string       `json:"publish"`
	External string         `json:"external,omitempty"` // where the network spans hosts
	Backends []shownBackend `json:"backends"`
}

type shownPort struct {
	Port        string `json:"port"`
	Connections uint64 `json:"connections"`
}

type shownBackend struct {
	Container string       `json:"container"`
	Host      string       `json:"host,omitempty"` // where the network spans several
	Interface string       `json:"interface"`
	Names     []string     `json:"names"`
	Addresses []netip.Addr `json:"addresses"`
	Weight    int          `json:"weight"`
	Drained   bool         `json:"drained"`
	// Connections that this host led there.
	Connections uint64 `json:"connections"`
}

func shownOf(f balancer.Found) shownService {
	all := shownService{
		Network: f.Network, Name: f.Name, Select: "alias=" + f.Select, VIPs: append([]netip.Addr{}, f.VIPs...), Affinity: string(f.Affinity),
		Ports: []shownPort{}, Publish: []string{}, External: string(f.External), Backends: []shownBackend{},
	}
	for _, p := range f.Published {
		all.Publish = append(all.Publish, p.String())
	}
	for i, p := range f.Ports {
		shown := shownPort{Port: p.String()}
		if i < len(f.Connections) {
			shown.Connections = f.Connections[i]
		}
		all.Ports = append(all.Ports, shown)
	}
	for i, b := range f.Backends {
		w, led := f.Weight(b.ContainerID), uint64(0)
		if i < len(f.Led) {
			led = f.Led[i]
		}
		all.Backends = append(all.Backends, shownBackend{b.ContainerID, b.Node, b.IfName, b.Names, b.Addresses, w, w == 0, led})
	}
	return all
}

func (s shownService) ports() string {
	var all []string
	for _, p := range s.Ports {
		all = append(all, p.Port)
	}
	return orDash(strings.Join(all, ","))
}

func serviceListCommand(s *settings) *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the services of this host",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(o *operator.Operator) error {
				found, err := o.ListServices(cmd.Context(), network)
				all := []shownService{}
				for _, f := range found {
					all = append(all, shownOf(f))
				}
				return errors.Join(err, s.print(cmd.OutOrStdout(), all, func(out io.Writer) error {
					var rows [][]string
					for _, v := range all {
						rows = append(rows, []string{v.Network, v.Name, orDash(joined(v.VIPs)), v.ports(), orDash(strings.Join(v.Publish, ",")), v.Select, strconv.Itoa(len(v.Backends))})
					}
					return table(out, []string{"NETWORK", "NAME", "ADDRESSES", "PORTS", "PUBLISHED", "SELECT", "CONTAINERS"}, rows)
				}))
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "only those of this `network`")
	return cmd
}

func serviceInspectCommand(s *settings) *cobra.Command {
	var f serviceFlags
	return ofService(&cobra.Command{
		Use:   "inspect NAME --network NETWORK",
		Short: "Show a service, its containers and its connections",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(o *operator.Operator) error {
				found, err := o.FindService(cmd.Context(), f.network, args[0])
				if err != nil {
					return err
				}
				shown := shownOf(found)
				return s.print(cmd.OutOrStdout(), shown, shown.write)
			})
		},
	}, &f, "NAME")
}

func (s shownService) write(out io.Writer) error {
	_, err := fmt.Fprintf(out, "Service %s of network %s\nAddresses: %s\nPublished: %s\n", s.Name, s.Network, orDash(joined(s.VIPs)), orDash(strings.Join(s.Publish, ",")))
	if s.External != "" {
		_, externalErr := fmt.Fprintf(out, "External:  %s\n", s.External)
		err = errors.Join(err, externalErr)
	}
	_, headErr := fmt.Fprintf(out, "Select:    %s\nAffinity:  %s\n\n", s.Select, s.Affinity)
	err = errors.Join(err, headErr)
	var ports, backends [][]string
	for _, p := range s.Ports {
		ports = append(ports, []string{p.Port, strconv.FormatUint(p.Connections, 10)})
	}
	for _, b := range s.Backends {
		state := "weight " + strconv.Itoa(b.Weight)
		if b.Drained {
			state = "drained"
		}
		row := []string{b.Container, b.Interface, joined(b.Addresses), state, strconv.FormatUint(b.Connections, 10)}
		if b.Host != "" {
			row = slices.Insert(row, 1, b.Host)
		}
		backends = append(backends, row)
	}
	columns := []string{"CONTAINER", "INTERFACE", "ADDRESSES", "STATE", "CONNECTIONS"}
	if len(backends) > 0 && len(backends[0]) > len(columns) {
		columns = slices.Insert(columns, 1, "HOST")
	}
	err = errors.Join(err, table(out, []string{"PORT", "CONNECTIONS SO FAR"}, ports))
	_, lineErr := fmt.Fprintln(out)
	return errors.Join(err, lineErr, table(out, columns, backends))
}

func serviceExportCommand(s *settings) *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the commands that make the services of this host again",
		Long: "Print a command for each service, for a shell, that makes it again with the same addresses: to be kept, and run after\n" +
			"a reboot when the network has its first container. Weights are left out, as they are those of containers.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(o *operator.Operator) error {
				found, err := o.ListServices(cmd.Context(), network)
				all := []string{}
				for _, f := range found {
					all = append(all, createCommand(f))
				}
				return errors.Join(err, s.print(cmd.OutOrStdout(), all, func(out io.Writer) error {
					var errs []error
					for _, line := range all {
						_, err := fmt.Fprintln(out, line)
						errs = append(errs, err)
					}
					return errors.Join(errs...)
				}))
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "only those of this `network`")
	return cmd
}

// createCommand is the command that makes a service.
func createCommand(f balancer.Found) string {
	vip := cmp.Or(joined(f.VIPs), "none")
	line := fmt.Sprintf("lnctl service create %s --network %s --select alias=%s --vip %s --affinity %s", f.Name, f.Network, f.Select, vip, f.Affinity)
	for _, p := range f.Ports {
		line += " --port " + p.String()
	}
	for _, p := range f.Published {
		line += " --publish '" + p.String() + "'" // brackets are a pattern to a shell
	}
	if f.External != "" {
		line += " --external " + string(f.External)
	}
	if f.StartDrained {
		line += " --start-drained"
	}
	return line
}

// whyRefused says why what is for a service, or for a port of the host that one has, is led to no
// container; empty: it is for no service.
func (s *settings) whyRefused(ctx context.Context, protocol string, dest netip.AddrPort) (why string) {
	_ = s.with(func(o *operator.Operator) error {
		all, err := o.ListServices(ctx, "")
		for _, f := range all {
			if why = notLed(f, protocol, dest); why != "" {
				break
			}
		}
		return err // doctor tells what cannot be read
	})
	return why
}

// notLed is whyRefused for one service.
func notLed(f balancer.Found, protocol string, dest netip.AddrPort) string {
	is := func(p firewall.Protocol, port uint16) bool { return p.String() == protocol && port == dest.Port() }
	has := slices.ContainsFunc(f.Ports, func(q service.Port) bool { return is(q.Protocol, q.Port) })
	vip := slices.Contains(f.VIPs, dest.Addr())
	published := slices.ContainsFunc(f.Published, func(q service.Published) bool {
		return is(q.Protocol, q.Port) && (!q.HostIP.IsValid() || q.HostIP.IsUnspecified() || q.HostIP == dest.Addr())
	})
	if !vip && !published {
		return ""
	}
	name := fmt.Sprintf("service %q of network %q", f.Name, f.Network)
	serving, drained := count(f, dest.Addr(), everywhere)
	if !vip && f.External == service.ExternalLocal && serving > 0 {
		if here, drained := count(f, dest.Addr(), onThisHost); here == 0 {
			return noneHere(f, name, drained)
		}
	}
	switch {
	case vip && !has:
		return fmt.Sprintf("%s has no port %d/%s; its ports are %s", name, dest.Port(), protocol, shownOf(f).ports())
	case serving+drained == 0:
		return fmt.Sprintf("no container is behind %s: none of the network has the name %q and an address of this family", name, f.Select)
	case serving == 0:
		return fmt.Sprintf("all containers behind %s are drained: lnctl service drain %s CONTAINER --network %s --undo", name, f.Name, f.Network)
	case vip:
		return fmt.Sprintf("the address is that of %s, for the containers of that network and the host; others need a published port (lnctl service update --publish)", name)
	}
	return fmt.Sprintf("it is for %s, whose rules led it nowhere; lnctl doctor says what is missing", name)
}

// noneHere says why a port of this host leads nowhere though containers of other hosts are behind
// the service.
func noneHere(f balancer.Found, name string, drained int) string {
	says := fmt.Sprintf("no container of this host is behind %s, and with --external local its port leads to none of another host", name)
	if drained > 0 {
		says = fmt.Sprintf("all containers of this host behind %s are drained, and with --external local its port leads to none of another host", name)
	}
	return says + fmt.Sprintf(": ask a host that has one, or lnctl service update %s --network %s --external nat", f.Name, f.Network)
}

// Containers of a service that count looks at.
func everywhere(service.Backend) bool   { return true }
func onThisHost(b service.Backend) bool { return b.Node == "" }

// count is how many containers of a service get connections to an address of its family, and how
// many are drained.
func count(f balancer.Found, to netip.Addr, of func(service.Backend) bool) (serving, drained int) {
	for _, b := range f.Backends {
		switch {
		case !of(b):
		case !slices.ContainsFunc(b.Addresses, func(a netip.Addr) bool { return a.Is4() == to.Is4() }):
		case f.Weight(b.ContainerID) > 0:
			serving++
		default:
			drained++
		}
	}
	return serving, drained
}
