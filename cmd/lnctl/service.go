package main

import (
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
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/service"
)

// serviceFlags are those of create and update.
type serviceFlags struct {
	network, selected, vip, affinity string
	external                         string
	ports, published, weights        []string
	undo, startDrained               bool
}

func serviceCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Give several containers one address",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(serviceCreateCommand(s), serviceListCommand(s), serviceInspectCommand(s), serviceUpdateCommand(s), serviceDrainCommand(s), serviceRemoveCommand(s), serviceExportCommand(s))
	for _, c := range cmd.Commands() {
		s.completesService(c)
	}
	return cmd
}

// ofService has a command take one NAME, or as many arguments as names says, and --network.
func ofService(cmd *cobra.Command, f *serviceFlags, names ...string) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError{fmt.Errorf("want %s; see %s --help", strings.Join(names, " "), cmd.CommandPath())}
		}
		if f.network == "" {
			return usageError{errors.New("--network: want the network of the service")}
		}
		return nil
	}
	cmd.Flags().StringVar(&f.network, "network", "", "`network` of the service and its containers")
	return cmd
}

// serviceError tells a wrong command line from what failed.
func serviceError(err error) error {
	if errors.Is(err, service.ErrInvalid) {
		return usageError{err}
	}
	return err
}

func serviceCreateCommand(s *settings) *cobra.Command {
	var f serviceFlags
	cmd := ofService(&cobra.Command{
		Use:   "create NAME --network NETWORK --select alias=ALIAS --port PORT:TARGET/PROTOCOL",
		Short: "Make a service",
		Long: "Give the containers of a network that have a name or alias one address. Each connection to it leads to one of\n" +
			"them, which sees the client's address. Containers come and go with ADD and DEL. On a network that spans hosts by\n" +
			"ln-agent it is the service of all hosts. On any other it lives as long as the state directory, which a reboot\n" +
			"empties: lnctl service export prints what makes it again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			def, vip, err := f.service(args[0])
			if err != nil {
				return usageError{err}
			}
			return s.with(func(o *operator.Operator) error {
				made, err := o.CreateService(cmd.Context(), def, vip)
				if err != nil {
					return serviceError(err)
				}
				return s.print(cmd.OutOrStdout(), shownOf(balancer.Found{Service: made}), func(out io.Writer) error {
					_, err := fmt.Fprintln(out, orDash(joined(made.VIPs)))
					return err
				})
			})
		},
	}, &f, "NAME")
	flags := cmd.Flags()
	flags.StringVar(&f.selected, "select", "", "`alias=NAME` that the containers have on the network")
	flags.StringVar(&f.vip, "vip", "auto", "`address` of the service, in the network's subnet; auto: free ones of its pool; none: names only")
	flags.BoolVar(&f.startDrained, "start-drained", false, "lead nothing to a container that comes until drain --undo: its program may not listen yet")
	f.changeable(cmd)
	return cmd
}

// changeable adds the flags that update has, too.
func (f *serviceFlags) changeable(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.ports, "port", nil, "`PORT:TARGET/PROTOCOL` as 80:8080/tcp; tcp, udp or sctp; may be given again")
	cmd.Flags().StringArrayVar(&f.published, "publish", nil, "`[HOSTIP:]PORT[:SERVICEPORT][/PROTOCOL]` of the host that leads to the service, as 8080:80/tcp; none: no port; may be given again")
	cmd.Flags().StringVar(&f.external, "external", "", "where a published port leads on a network that spans hosts: `nat`, to all containers, of which those of other hosts see this host; preserve, to all, which see the client; or local, to those of the host, which see the client (default nat)")
	cmd.Flags().StringVar(&f.affinity, "affinity", "none", "`none`, or client: all connections from one address to one container")
}

// service reads the flags of create.
func (f *serviceFlags) service(name string) (def service.Service, vip operator.VIP, err error) {
	def = service.Service{Network: f.network, Name: name, Affinity: service.Affinity(f.affinity), StartDrained: f.startDrained, External: service.External(f.external)}
	selected, ok := strings.CutPrefix(f.selected, "alias=")
	if !ok {
		return def, vip, fmt.Errorf("--select %q: want alias=NAME", f.selected)
	}
	def.Select = selected
	switch f.vip {
	case "auto":
		vip.Auto = true
	case "none":
		vip.None = true
	default:
		for text := range strings.SplitSeq(f.vip, ",") {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				return def, vip, fmt.Errorf("--vip %q: want auto, none, or an address", text)
			}
			vip.Addrs = append(vip.Addrs, a.Unmap())
		}
	}
	if def.Ports, err = parsePorts(f.ports); err != nil {
		return def, vip, err
	}
	return def, vip, f.publish(&def)
}

// publish sets what the flag says; "none" is no port.
func (f *serviceFlags) publish(def *service.Service) error {
	var all []service.Published
	for _, text := range f.published {
		if text == "none" && len(f.published) == 1 {
			break
		}
		p, err := service.ParsePublished(text)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	return def.Publish(all)
}

func parsePorts(texts []string) (all []service.Port, err error) {
	for _, text := range texts {
		p, err := service.ParsePort(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func serviceUpdateCommand(s *settings) *cobra.Command {
	var f serviceFlags
	cmd := ofService(&cobra.Command{
		Use:   "update NAME --network NETWORK",
		Short: "Change ports, published ports, affinity or weights of a service",
		Long:  "Change what the flags name, and leave the rest. Connections that are there stay where they are.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ports, err := parsePorts(f.ports)
			if err != nil {
				return usageError{err}
			}
			return s.changeService(cmd.Context(), f.network, args[0], func(def *service.Service, backends []service.Backend) error {
				if cmd.Flags().Changed("port") {
					def.Ports = ports
				}
				if cmd.Flags().Changed("publish") {
					if err := f.publish(def); err != nil {
						return err
					}
				}
				if cmd.Flags().Changed("external") {
					def.External = service.External(f.external)
				}
				if cmd.Flags().Changed("affinity") {
					def.Affinity = service.Affinity(f.affinity)
				}
				for _, w := range f.weights {
					if err := weigh(def, backends, w); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}, &f, "NAME")
	f.changeable(cmd)
	cmd.Flags().StringArrayVar(&f.weights, "weight", nil, "`CONTAINER=WEIGHT`, 0 to 1000; 1 unless it is given; may be given again")
	return cmd
}

func weigh(def *service.Service, backends []service.Backend, text string) error {
	container, weight, _ := strings.Cut(text, "=")
	n, err := strconv.Atoi(weight)
	if err != nil {
		return usageError{fmt.Errorf("--weight %q: want CONTAINER=WEIGHT, as web-1=5", text)}
	}
	b, err := backendNamed(backends, container)
	if err != nil {
		return err
	}
	setWeight(def, b.ContainerID, n)
	return nil
}

func setWeight(def *service.Service, containerID string, weight int) {
	all := map[string]int{}
	for id, w := range def.Weights {
		all[id] = w
	}
	delete(all, containerID)
	if def.Weights = all; def.Weight(containerID) != weight {
		all[containerID] = weight
	}
}

// backendNamed returns the backend that is meant by the beginning of its ID or one of its
// names.
func backendNamed(backends []service.Backend, text string) (service.Backend, error) {
	var found []service.Backend
	for _, b := range backends {
		same := func(name string) bool { return strings.EqualFold(name, text) }
		if text != "" && strings.HasPrefix(b.ContainerID, text) || slices.ContainsFunc(b.Names, same) {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		return service.Backend{}, usageError{fmt.Errorf("%q: is %d of the service's containers, want one: lnctl service inspect has their IDs", text, len(found))}
	}
	return found[0], nil
}

// changeService changes a service by fn, which gets its backends.
func (s *settings) changeService(ctx context.Context, network, name string, fn func(*service.Service, []service.Backend) error) error {
	return s.with(func(o *operator.Operator) error {
		found, err := o.FindService(ctx, network, name)
		if err != nil {
			return err
		}
		return serviceError(o.UpdateService(ctx, network, name, func(def *service.Service) error { return fn(def, found.Backends) }))
	})
}

func serviceDrainCommand(s *settings) *cobra.Command {
	var f serviceFlags
	cmd := ofService(&cobra.Command{
		Use:   "drain NAME CONTAINER --network NETWORK",
		Short: "Lead no new connection to a container",
		Long: "Lead new connections to the other containers of a service. Those that the container has go on. CONTAINER is the\n" +
			"beginning of its ID, or a name of it. Do this before you stop a container, and no request is lost.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.changeService(cmd.Context(), f.network, args[0], func(def *service.Service, backends []service.Backend) error {
				b, err := backendNamed(backends, args[1])
				if err != nil {
					return err
				}
				weight := 0
				if f.undo {
					weight = 1
				}
				setWeight(def, b.ContainerID, weight)
				return nil
			})
		},
	}, &f, "NAME", "CONTAINER")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "lead new connections to it again")
	return cmd
}

func serviceRemoveCommand(s *settings) *cobra.Command {
	var f serviceFlags
	return ofService(&cobra.Command{
		Use:   "rm NAME --network NETWORK",
		Short: "Remove a service",
		Long:  "Remove a service and give its address back. Connections that it led go on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(o *operator.Operator) error { return o.RemoveService(cmd.Context(), f.network, args[0]) })
		},
	}, &f, "NAME")
}
