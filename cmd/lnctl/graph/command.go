package graph

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/graph"
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
					own, err := graph.Look(cmd.Context(), op)
					own.Host = cmp.Or(host, own.Host)
					hosts = append([]graph.Host{own}, hosts...)
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
func read(files []string) (all []graph.Host, err error) {
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var hosts []graph.Host
		if err := json.Unmarshal(data, &hosts); err != nil {
			return nil, fmt.Errorf("--with %s: want what lnctl graph -o json printed: %w", path, err)
		}
		all = append(all, hosts...)
	}
	return all, nil
}

func print(out io.Writer, o *console.Output, hosts []graph.Host, format, file string) (err error) {
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
			_, err = io.WriteString(out, graph.Picture(hosts))
		case "html":
			_, err = io.WriteString(out, graph.Page(hosts))
		default:
			err = graph.WriteText(out, hosts)
		}
		return err
	})
}
