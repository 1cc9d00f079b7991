package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

// Command is "lnctl graph". With calls a function with an Operator of the command line.
func Command(o *console.Output, with func(func(*operator.Operator) error) error) *cobra.Command {
	var format, file, host string
	var more []string
	var alone bool
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Draw the networks with their containers: as text, as a picture (SVG) or as a page (HTML)",
		Long: "Draw the networks of this host with their containers, addresses, published ports, and how full their pools are. Red is what\n" +
			"lnctl check finds. -o json prints the same; --with adds what that printed on other hosts, so that a picture has them all.\n" +
			"An SVG or HTML file needs nothing else: it loads no font, no script, no picture.",
		Args: console.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(formats, format) {
				return console.Usage("--format %q: want text, svg or html", format)
			}
			hosts, err := read(more)
			if err != nil {
				return err
			}
			if !alone {
				err = with(func(op *operator.Operator) error {
					own, err := look(cmd.Context(), op)
					own.Host = cmp.Or(host, own.Host)
					hosts = append([]Host{own}, hosts...)
					return err
				})
			}
			if err != nil && len(hosts) == 0 {
				return err
			}
			return errors.Join(print(cmd.OutOrStdout(), o, hosts, format, file), err)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "f", "text", "text, svg or html")
	flags.StringVar(&file, "file", "", "write to `file`, not to stdout")
	flags.StringVar(&host, "host", "", "`name` of this host in the picture (default: its host name)")
	flags.StringArrayVar(&more, "with", nil, "add the hosts that lnctl graph -o json has written to `file`")
	flags.BoolVar(&alone, "only-with", false, "draw the hosts of --with alone, and not this one")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var formats = []string{"text", "svg", "html"}

// read reads hosts that were written by -o json.
func read(files []string) (all []Host, err error) {
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var hosts []Host
		if err := json.Unmarshal(data, &hosts); err != nil {
			return nil, fmt.Errorf("--with %s: want what lnctl graph -o json printed: %w", path, err)
		}
		all = append(all, hosts...)
	}
	return all, nil
}

func print(out io.Writer, o *console.Output, hosts []Host, format, file string) (err error) {
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(print(f, o, hosts, format, ""), f.Close())
	}
	return o.Print(out, hosts, func(out io.Writer) error {
		switch format {
		case "svg":
			_, err = io.WriteString(out, picture(hosts))
		case "html":
			_, err = io.WriteString(out, page(hosts))
		default:
			err = writeText(out, hosts)
		}
		return err
	})
}

// look asks this host. What cannot be read is in the error, beside the rest.
func look(ctx context.Context, o *operator.Operator) (Host, error) {
	name, err := os.Hostname()
	h := Host{Host: name, Networks: []Network{}}
	networks, listErr := o.Networks(ctx)
	errs := []error{err, listErr}
	for _, n := range networks {
		drawn, err := network(ctx, o, n)
		h.Networks, errs = append(h.Networks, drawn), append(errs, err)
	}
	return h, errors.Join(errs...)
}

func network(ctx context.Context, o *operator.Operator, n *engine.Network) (Network, error) {
	c := n.Config()
	drawn := Network{Name: n.Name(), Driver: n.Driver(), Bridge: c.Bridge, Internal: c.IsInternal(), Subnets: []string{}, Peers: []string{}, Containers: []Container{}}
	for _, s := range n.Subnets() {
		drawn.Subnets = append(drawn.Subnets, s.String())
	}
	for _, node := range c.Tunnel.Nodes {
		if node.Address != c.Tunnel.Self {
			drawn.Peers = append(drawn.Peers, node.Address.String())
		}
	}
	pool, err := o.Pool(ctx, n)
	if errors.Is(err, operator.ErrNoPool) {
		err = nil
	}
	for _, set := range pool.Sets { // of both families the smaller one is what runs out
		if drawn.Capacity == 0 || set.Capacity < drawn.Capacity {
			drawn.Held, drawn.Capacity = set.Held, set.Capacity
		}
	}
	endpoints, listErr := n.Endpoints(ctx)
	errs := []error{err, listErr}
	alive := false
	for _, e := range endpoints {
		a := o.Inspect(e)
		drawn.Containers = append(drawn.Containers, container(ctx, e, a))
		alive = alive || a.Life == operator.Alive
	}
	if alive {
		if err := n.Unplugged(ctx); err != nil {
			drawn.Problem = firstLine(err)
		}
	}
	return drawn, errors.Join(errs...)
}

func container(ctx context.Context, e *engine.Endpoint, a operator.Attachment) Container {
	rec := e.Record()
	c := Container{ID: a.ID.ContainerID, Interface: rec.Inside(), Addresses: []string{}, Ports: []string{}}
	if rec.Names != nil && len(rec.Names.Own) > 0 {
		c.Name = rec.Names.Own[0]
	}
	for _, addr := range a.Addresses {
		c.Addresses = append(c.Addresses, addr.Addr().String())
	}
	for _, p := range rec.Ports {
		c.Ports = append(c.Ports, fmt.Sprintf("%s → %d/%s", console.Where(p.HostIP, p.HostPort, p.HostPortEnd), p.ContainerPort, p.Protocol))
	}
	switch a.Life {
	case operator.Alive:
		if err := e.Verify(ctx); err != nil {
			c.Problem = firstLine(err)
		}
	case operator.Dead:
		c.Problem = "dead: " + a.Why
	default:
		c.Problem = string(a.Life)
	}
	return c
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
