package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plugin"
)

// explained is a configuration, and what it makes.
type explained struct {
	File    string   `json:"file"`
	Network string   `json:"network"`
	Plugin  string   `json:"plugin"`
	Keys    []Key    `json:"keys"`
	Notes   []string `json:"notes"`
	Steps   []Step   `json:"steps"`
}

// Command is "lnctl explain".
func Command(o *console.Output, version string) *cobra.Command {
	var container, ifName string
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Say what a configuration makes, in the words of ip and nft, and where each value comes from",
		Long: "Read a configuration as ADD does, plan what ADD would make for a first container, and print that as commands of ip, bridge,\n" +
			"sysctl and nft that would make the same. Nothing is made. Each key is listed with its value, and says whether the\n" +
			"configuration has it, its template, or the node's defaults, or it is the default.",
		Args: console.One("one configuration, as /etc/cni/net.d/50-web.conflist"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := explain(cmd.Context(), args[0], version, model.ID{ContainerID: container, IfName: ifName}, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.Print(cmd.OutOrStdout(), all, func(out io.Writer) error { return write(out, all) })
		},
	}
	cmd.Flags().StringVar(&container, "container", "CONTAINER", "`ID` of the container, of which names of interfaces are made")
	cmd.Flags().StringVar(&ifName, "ifname", "eth0", "`name` of the interface in the container")
	return cmd
}

func explain(ctx context.Context, path, version string, id model.ID, stderr io.Writer) ([]explained, error) {
	f := netconf.ReadFile(path)
	if f.Err != nil {
		return nil, fmt.Errorf("%s: %w", path, f.Err)
	}
	if len(f.Networks) == 0 {
		return nil, fmt.Errorf("%s: neither bridge-ln nor overlay-ln is in it", path)
	}
	var all []explained
	for _, m := range f.Networks {
		e := explained{File: path, Network: f.Network, Plugin: m.Plugin.String(), Keys: keysOf(m), Notes: []string{}, Steps: []Step{}}
		id.Network = f.Network
		err := define(m, version, id, stderr, func(d plugin.Defined) error { return e.plan(ctx, d, id) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// define has the plugin read its configuration as ADD does.
func define(m netconf.Member, version string, id model.ID, stderr io.Writer, fn func(plugin.Defined) error) error {
	conf := map[string]json.RawMessage{}
	for v := range m.Source.Conf.Values() {
		conf[v.Name()] = v.Raw()
	}
	var err error
	if conf["name"], err = json.Marshal(id.Network); err != nil {
		return err
	}
	conf["cniVersion"] = json.RawMessage(`"1.1.0"`)
	data, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	env := map[string]string{"CNI_COMMAND": "CHECK", "CNI_CONTAINERID": id.ContainerID, "CNI_NETNS": "/proc/self/ns/net", "CNI_IFNAME": id.IfName}
	var out bytes.Buffer
	var failed error // of fn, with its own words
	define := plugin.Define(m.Plugin, version, func(d plugin.Defined) error { failed = fn(d); return failed })
	code := define.Run(func(key string) string { return env[key] }, cni.Streams{Stdin: bytes.NewReader(data), Stdout: &out, Stderr: stderr})
	if code == 0 || failed != nil {
		return failed
	}
	bad := &types.Error{}
	if err := json.Unmarshal(out.Bytes(), bad); err != nil {
		return fmt.Errorf("%s: %s", m.Plugin, out.Bytes())
	}
	return bad
}

// plan is what ADD makes for a first container.
func (e *explained) plan(ctx context.Context, d plugin.Defined, id model.ID) error {
	a, err := e.addressing(ctx, d, id)
	if err != nil {
		return err
	}
	if a, err = a.Complete(d.Plan.Config); err != nil {
		return err
	}
	mac := d.MAC
	if mac == nil && d.Config.SpoofCheck {
		mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}
		e.note("02:00:00:00:00:01 stands for the MAC address that ADD chooses")
	}
	if d.Config.AutoMTU {
		e.note("the MTU is that of the host's default route, or, of a tunnel, of the routes to its hosts, at the time of ADD")
	}
	p, err := d.Plan.Endpoint(id, a, mac, d.Ports)
	if err != nil {
		return err
	}
	imply(e.Keys, d.Plan.Config)
	e.Steps, err = steps(d.Plan, p, d.Config.Backend)
	return err
}

func (e *explained) note(text string) { e.Notes = append(e.Notes, text) }

// addressing has an empty pool of the same configuration give addresses.
func (e *explained) addressing(ctx context.Context, d plugin.Defined, id model.ID) (a model.Addressing, err error) {
	if d.Pool == nil {
		switch d.IPAMType {
		case "":
		case address.PoolType:
			e.note("the subnet is chosen with the first container: what is made of addresses is not shown")
		default:
			e.note("addresses come from " + d.IPAMType + ": what is made of them is not shown")
		}
		return a, nil
	}
	dir, err := os.MkdirTemp("", "lnctl-explain-")
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := d.Pool.Saved().Config(id.Network)
	cfg.DataDir = dir
	pool, err := address.NewPool(cfg, d.Pool.Saved().Extra)
	if err != nil {
		return a, err
	}
	var asked address.Claim
	if d.Network.Pool != nil {
		asked.Addresses = d.Network.Pool.Requested
	}
	asked.ID = id
	return pool.Apply(ctx, asked)
}

func write(out io.Writer, all []explained) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		errs = append(errs, err)
	}
	for i, e := range all {
		if i > 0 {
			line("")
		}
		line("network %s, plugin %s (%s)\n", e.Network, e.Plugin, e.File)
		var rows [][]string
		for _, k := range e.Keys {
			rows = append(rows, []string{k.Key, k.Value, string(k.From)})
		}
		errs = append(errs, console.WriteTable(out, []string{"KEY", "VALUE", "FROM"}, rows))
		line("\nADD of a first container:")
		for _, n := range e.Notes {
			line("! %s", n)
		}
		for _, s := range e.Steps {
			line("\n# %s", s.Does)
			for _, c := range s.Commands {
				line("%s", c)
			}
		}
	}
	return errors.Join(errs...)
}
