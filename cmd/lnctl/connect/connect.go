package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/cmd/lnctl/find"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/state"
)

// Host is what the commands have of lnctl.
type Host struct {
	*console.Output
	// With calls a function with an Operator of the command line.
	With    func(func(*operator.Operator) error) error
	Records func() ([]state.Endpoint, error)
	// StateDir and ConfDir are values of flags.
	StateDir, ConfDir *string
	DefaultConfDir    string
	Version           string
	// Complete completes the network, then the container.
	Complete cobra.CompletionFunc
}

// connected is an attachment that was made, or is gone.
type connected struct {
	Network   string   `json:"network"`
	Container string   `json:"container"`
	Interface string   `json:"interface"`
	Addresses []string `json:"addresses,omitempty"`
	Ports     []string `json:"ports,omitempty"`
}

// wish is what connect is to make.
type wish struct {
	network, container, ifName string
	ips, aliases, publish      []string
	priority                   int
	given                      bool // priority is
}

// Command is "lnctl connect".
func Command(h Host) *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "connect NETWORK CONTAINER",
		Short: "Attach a running container to one more network",
		Long: "Attach a running container, given by its ID, the beginning of it or its name, to one more network of a configuration, as\n" +
			"ADD would. The container's runtime does not know of it: the attachment goes with the container's last one that its\n" +
			"runtime made, and until then no garbage collection of the runtime's takes it away. lnctl disconnect does.\n\n" +
			"The container keeps its default route, unless --gw-priority is higher than that of its other networks. Of a list of\n" +
			"plugins, bridge-ln or overlay-ln alone is called.",
		Args:              both,
		ValidArgsFunction: h.Complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.network, w.container, w.given = args[0], args[1], cmd.Flags().Changed("gw-priority")
			made, err := h.connect(cmd.Context(), w, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return h.Print(cmd.OutOrStdout(), made, made.write)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&w.ifName, "ifname", "", "`name` of the interface in the container (default: the first of eth0, eth1 … that is free)")
	flags.StringArrayVar(&w.ips, "ip", nil, "`address` that the container is to have, one of each family at most")
	flags.StringArrayVar(&w.aliases, "alias", nil, "`name` by which the network's other containers find it, if the network has names")
	flags.StringArrayVar(&w.publish, "publish", nil, "publish a port of the host, as `[IP:]PORT:CONTAINERPORT[/PROTOCOL]`; tcp if not said")
	flags.IntVar(&w.priority, "gw-priority", 0, "the container's network with the highest has the default route (default: one less than the others)")
	flags.StringVar(h.ConfDir, "conf-dir", h.DefaultConfDir, "where the runtime's configurations of networks are")
	return cmd
}

// DisconnectCommand is "lnctl disconnect".
func DisconnectCommand(h Host) *cobra.Command {
	var ifName string
	cmd := &cobra.Command{
		Use:   "disconnect NETWORK CONTAINER",
		Short: "Take back what connect made",
		Long: "Remove the attachment of a container to a network that lnctl connect made: link, rules, ports and addresses. One that\n" +
			"the container's runtime made is refused: the runtime would not know.",
		Args:              both,
		ValidArgsFunction: h.Complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.With(func(o *operator.Operator) error {
				gone, err := h.disconnect(cmd.Context(), o, args[0], args[1], ifName)
				if err != nil {
					return err
				}
				return h.Print(cmd.OutOrStdout(), gone, func(out io.Writer) error {
					_, err := fmt.Fprintf(out, "disconnected %s from %s: %s\n", gone.Container, gone.Network, gone.Interface)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&ifName, "ifname", "", "`name` of the interface in the container, if it is connected more than once")
	return cmd
}

func both(_ *cobra.Command, args []string) error {
	if len(args) != 2 {
		return console.Usage("want a network and a container, got %d arguments; lnctl network ls and lnctl endpoint ls list them", len(args))
	}
	return nil
}

func (h Host) connect(ctx context.Context, w wish, stderr io.Writer) (made connected, err error) {
	call, err := h.prepare(w)
	if err != nil {
		return made, err
	}
	records, err := h.Records()
	of, findErr := find.Container(records, w.container)
	if findErr != nil {
		return made, errors.Join(findErr, err)
	}
	err = h.With(func(o *operator.Operator) error {
		if err := call.into(o, of, w); err != nil {
			return err
		}
		if len(call.others) > 0 {
			_, _ = fmt.Fprintf(stderr, "lnctl: %s: %s alone is called, and not %s\n", call.file, call.plugin, strings.Join(call.others, ", "))
		}
		made, err = call.add(h.Version, stderr)
		if err != nil {
			return err
		}
		// A DEL of the container's last attachment looks for guests, after that is gone; so
		// either it has seen ours, or we see here that nothing is left.
		id := model.ID{Network: w.network, ContainerID: made.Container, IfName: made.Interface}
		abandoned, err := o.Abandoned(id)
		if err != nil || abandoned || !o.IsGuest(id) {
			if removeErr := o.Disconnect(ctx, id); !errors.Is(removeErr, model.ErrNotFound) {
				err = errors.Join(err, removeErr)
			}
			return errors.Join(fmt.Errorf("container %s was removed meanwhile, or attached by its runtime", made.Container), err)
		}
		return nil
	})
	return made, err
}

// into completes a call for a container.
func (c *call) into(o *operator.Operator, of []state.Endpoint, w wish) error {
	first := of[0]
	for _, r := range of {
		if !o.IsGuest(model.ID{Network: r.Network, ContainerID: r.ContainerID, IfName: r.IfName}) {
			first = r
		}
		if r.Network == w.network && (w.ifName == "" || r.IfName == w.ifName) && r.Phase == state.PhaseReady {
			return fmt.Errorf("container %s is on network %q already, by %s", r.ContainerID, r.Network, r.Inside())
		}
	}
	if why := o.WhyDead(life.OfRecord(first)); why != "" {
		return fmt.Errorf("container %s is not running: %s", first.ContainerID, why)
	}
	ns, err := netns.Open(first.Netns)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	c.taken = func(name string) (is bool) {
		if slices.ContainsFunc(of, func(r state.Endpoint) bool { return r.Inside() == name || r.IfName == name }) {
			return true
		}
		_ = ns.Do(func() error { // one that cannot be looked into ADD refuses
			_, err := net.InterfaceByName(name)
			is = err == nil
			return nil
		})
		return is
	}
	c.container, c.netns, c.ifName, c.fixed = first.ContainerID, first.Netns, w.ifName, w.ifName != ""
	priority := w.priority
	if !w.given {
		for _, r := range of {
			priority = min(priority, r.GatewayPriority)
		}
		priority--
	}
	c.runtime["gwPriority"] = priority
	c.names(of)
	guests, err := o.Guests(c.container)
	if i := slices.IndexFunc(guests, func(id model.ID) bool { return id.Network == w.network }); i >= 0 && !c.fixed {
		c.ifName, c.fixed = guests[i].IfName, true // what a killed connect began
	}
	if !c.fixed {
		c.ifName = c.free(0)
	}
	return err
}

func (h Host) disconnect(ctx context.Context, o *operator.Operator, network, container, ifName string) (gone connected, err error) {
	records, err := h.Records()
	of, findErr := find.Container(records, container)
	if findErr == nil {
		container = of[0].ContainerID
	}
	guests, guestErr := o.Guests(container) // also of one that was killed before it had a record
	guests = slices.DeleteFunc(guests, func(id model.ID) bool { return id.Network != network || ifName != "" && id.IfName != ifName })
	switch {
	case len(guests) == 1:
	case len(guests) > 1:
		return gone, fmt.Errorf("container %s is connected to network %q by %s and %s: name one with --ifname", container, network, guests[0].IfName, guests[1].IfName)
	case findErr != nil:
		return gone, errors.Join(findErr, err, guestErr)
	case slices.ContainsFunc(of, func(r state.Endpoint) bool { return r.Network == network }):
		return gone, fmt.Errorf("container %s was attached to network %q by its runtime, which alone takes it out", container, network)
	default:
		return gone, errors.Join(fmt.Errorf("container %s is not on network %q", container, network), guestErr)
	}
	gone = connected{Network: network, Container: container, Interface: guests[0].IfName}
	return gone, o.Disconnect(ctx, guests[0])
}

func (c connected) write(out io.Writer) error {
	_, err := fmt.Fprintf(out, "connected %s to %s: %s", c.Container, c.Network, c.Interface)
	if len(c.Addresses) > 0 {
		_, more := fmt.Fprintf(out, " has %s", strings.Join(c.Addresses, ", "))
		err = errors.Join(err, more)
	}
	if len(c.Ports) > 0 {
		_, more := fmt.Fprintf(out, ", published %s", strings.Join(c.Ports, ", "))
		err = errors.Join(err, more)
	}
	_, more := fmt.Fprintln(out)
	return errors.Join(err, more)
}
