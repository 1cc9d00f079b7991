package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/operator"
)

// networkDetail is what network inspect prints.
type networkDetail struct {
	networkSummary
	Config map[string]any `json:"config"` // what is set, by the fields of model.NetworkConfig
	// Keys are those of the configuration with what lies below it; empty: nothing does.
	Keys        []netconf.RecordedKey `json:"keys,omitempty"`
	Attachments []attachment          `json:"attachments"`
	Ports       []port                `json:"ports"`
}

type attachment struct {
	Container     string   `json:"container"`
	Interface     string   `json:"interface"`
	Addresses     []string `json:"addresses"`
	MAC           string   `json:"mac"`
	HostInterface string   `json:"hostInterface"`
	Netns         string   `json:"netns,omitempty"`
	Backend       string   `json:"backend,omitempty"`
	Runtime       string   `json:"runtime,omitempty"`
	GwPriority    int      `json:"gwPriority,omitempty"`
	condition
}

func attachmentOf(a operator.Attachment) attachment {
	return attachment{
		Container: a.ID.ContainerID, Interface: a.ID.IfName, Addresses: texts(a.Addresses), MAC: a.MAC, HostInterface: a.HostName,
		Netns: a.Netns, Backend: string(a.Backend), Runtime: a.Runtime, GwPriority: a.GatewayPriority, condition: conditionOf(a),
	}
}

// condition says whether a container lives.
type condition struct {
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

func conditionOf(a operator.Attachment) condition { return condition{string(a.Life), a.Why} }

// text is "alive", or "dead: why".
func (c condition) text() string {
	if c.Why == "" {
		return c.State
	}
	return c.State + ": " + c.Why
}

func networkInspectCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:               "inspect NAME",
		Short:             "Show a network's configuration, attachments and ports, and from which template or defaults its keys are",
		Args:              oneNetwork,
		ValidArgsFunction: s.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(func(c *operator.Operator) error {
				n, err := c.Network(args[0])
				if err != nil {
					return err
				}
				d, err := detail(cmd.Context(), c, n)
				layers, _, layersErr := engine.RecordedLayers(s.stateDir, n.Name())
				d.Keys, err = netconf.RecordedKeys(layers), errors.Join(err, layersErr)
				return errors.Join(s.print(cmd.OutOrStdout(), d, d.write), err)
			})
		},
	}
}

func detail(ctx context.Context, c *operator.Operator, n *engine.Network) (networkDetail, error) {
	sum, err := summary(ctx, c, n)
	d := networkDetail{networkSummary: sum, Config: given(n.Config()), Attachments: []attachment{}, Ports: []port{}}
	endpoints, _ := n.Endpoints(ctx) // its error is in err
	for _, e := range endpoints {
		a := c.Inspect(e)
		d.Attachments = append(d.Attachments, attachmentOf(a))
	}
	ports, portsErr := allPorts(ctx, c)
	for _, p := range ports {
		if p.Network == n.Name() {
			d.Ports = append(d.Ports, p)
		}
	}
	return d, errors.Join(err, portsErr)
}

func (d networkDetail) write(out io.Writer) error {
	_, err := fmt.Fprintf(out, "name:     %s\ndriver:   %s\nbridge:   %s\nipam:     %s\nsubnets:  %s\nconfig:   %s\n\n",
		d.Name, d.Driver, d.Bridge, orDash(d.IPAM), d.subnetText(), orDash(strings.Join(words(d.Config), ", ")))
	if len(d.Keys) > 0 {
		var rows [][]string
		for _, k := range d.Keys {
			rows = append(rows, []string{k.Key, strings.Join(strings.Fields(k.Value), " "), k.From})
		}
		err = errors.Join(err, table(out, []string{"KEY", "VALUE", "FROM"}, rows))
		_, lineErr := fmt.Fprintln(out)
		err = errors.Join(err, lineErr)
	}
	err = errors.Join(err, table(out, d.columns(), d.rows()))
	if len(d.Ports) == 0 {
		return err
	}
	_, lineErr := fmt.Fprintln(out)
	return errors.Join(err, lineErr, listPorts(out, d.Ports))
}

// prioritised says that a gateway priority is of interest.
func (d networkDetail) prioritised() bool {
	return slices.ContainsFunc(d.Attachments, func(a attachment) bool { return a.GwPriority != 0 })
}

func (d networkDetail) columns() []string {
	all := []string{"CONTAINER", "INTERFACE", "ADDRESSES", "HOST INTERFACE", "NETNS", "RULES", "STATE"}
	if d.prioritised() {
		all = slices.Insert(all, 3, "GATEWAY PRIORITY")
	}
	return all
}

func (d networkDetail) rows() [][]string {
	var rows [][]string
	for _, a := range d.Attachments {
		row := []string{
			a.Container, a.Interface, orDash(strings.Join(a.Addresses, ", ")), a.HostInterface, orDash(a.Netns), orDash(a.Backend), a.text(),
		}
		if d.prioritised() {
			row = slices.Insert(row, 3, strconv.Itoa(a.GwPriority))
		}
		rows = append(rows, row)
	}
	return rows
}

// given returns what is set of a configuration; its bridge has a line of its own.
func given(c model.NetworkConfig) map[string]any {
	all := map[string]any{}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "Bridge" && !v.Field(i).IsZero() {
			all[name] = v.Field(i).Interface()
		}
	}
	return all
}

// words are a configuration as "DefaultGateway, MTU 1400", what has parts of its
// own as "Tunnel (Port 4790, VNI 7)".
func words(config map[string]any) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(config)) {
		if value := config[name]; value != true {
			name += " " + word(reflect.ValueOf(value))
		}
		all = append(all, name)
	}
	return all
}

// word is a value: a list in brackets, the fields of a struct that are set in
// parentheses, unless it has words of its own.
func word(v reflect.Value) string {
	if _, has := v.Interface().(fmt.Stringer); has {
		return fmt.Sprint(v.Interface())
	}
	var parts []string
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, word(v.Index(i)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			switch name := v.Type().Field(i).Name; {
			case f.IsZero():
			case f.Kind() == reflect.Bool:
				parts = append(parts, name)
			default:
				parts = append(parts, name+" "+word(f))
			}
		}
		return "(" + strings.Join(parts, ", ") + ")"
	}
	return fmt.Sprint(v.Interface())
}
