package conf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// InUse returns what a new subnet must not overlap, beside the subnets of configurations.
type InUse func() ([]netip.Prefix, error)

// wish is what a network is to be.
type wish struct {
	name, like, confDir string
	subnets             []string
	ipv6                bool
	bridge, mtu, mode   string
	internal, noICC     bool
	names, dry          bool
	version, prefix     string
}

// created is what create did.
type created struct {
	Network string          `json:"network"`
	File    string          `json:"file"`
	Bridge  string          `json:"bridge"`
	Subnets []string        `json:"subnets"`
	Written bool            `json:"written"`
	Config  json.RawMessage `json:"config"`
	// Takes is the file that a runtime takes which takes one alone.
	Takes string `json:"first"`
}

// CreateCommand is "lnctl network create".
func CreateCommand(o *console.Output, confDir string, inUse InUse) *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Write the configuration of a new network, with a free subnet",
		Long: "Write the configuration of a new network of bridge-ln into the directory of the runtime: whole, or not at all, and never\n" +
			"over another one. The bridge is made with the first container. Without --subnet it takes a subnet of the host's address\n" +
			"pools that overlaps no route, address or name server of the host and no other network, of a configuration or record.\n\n" +
			"--like docker      outside only published ports are reached (gatewayMode nat)\n" +
			"--like kubernetes  every host with a route reaches the containers, as Kubernetes demands; connections to other\n" +
			"                   networks are masqueraded\n" +
			"--like internal    the containers reach each other and the host, and no other network (internal)",
		Args:              console.One("the name of the new network"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.name = args[0]
			made, err := w.create(cmd.Context(), inUse, cmd.Flags().Changed("bridge"))
			if err != nil {
				return err
			}
			return o.Print(cmd.OutOrStdout(), made, made.write)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&w.like, "like", "docker", "what the network is like: docker, kubernetes or internal")
	flags.StringArrayVar(&w.subnets, "subnet", nil, "`prefix` of the addresses, once for each family, as 10.1.0.0/24; auto, auto/24, auto6: a free one (default auto)")
	flags.BoolVar(&w.ipv6, "ipv6", false, "give IPv6 addresses, too: the same as --subnet auto --subnet auto6")
	flags.StringVar(&w.bridge, "bridge", "", "`name` of the bridge (default: derived from the network's)")
	flags.StringVar(&w.mtu, "mtu", "auto", "MTU in bytes, or auto: that of the host's default route")
	flags.StringVar(&w.mode, "gateway-mode", "", "which clients outside reach the containers: nat, nat-unprotected, routed or isolated (default: by --like)")
	flags.BoolVar(&w.internal, "internal", false, "the same as --like internal")
	flags.BoolVar(&w.noICC, "no-icc", false, "containers do not reach each other")
	flags.BoolVar(&w.names, "names", false, "containers find each other by name, if ln-agent runs")
	flags.StringVar(&w.version, "cni-version", "1.0.0", "cniVersion: 1.1.0 where the runtime takes it (containerd from 2.0)")
	flags.StringVar(&w.prefix, "file-prefix", "50", "beginning of the file's name: containerd and CRI-O take the first file")
	flags.StringVar(&w.confDir, "conf-dir", confDir, "directory of the runtime's configurations")
	flags.BoolVar(&w.dry, "dry-run", false, "print the configuration, and write nothing")
	_ = cmd.RegisterFlagCompletionFunc("like", cobra.FixedCompletions([]string{"docker", "kubernetes", "internal"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (w wish) create(ctx context.Context, inUse InUse, bridgeGiven bool) (created, error) {
	if err := w.check(); err != nil {
		return created{}, err
	}
	if !w.dry {
		unlock, err := lockDir(ctx, w.confDir)
		if err != nil {
			return created{}, err
		}
		defer unlock()
	}
	files := netconf.Files(w.confDir)
	for _, f := range files {
		if f.Network == w.name {
			return created{}, fmt.Errorf("network %q is there already: %s", w.name, f.Path)
		}
		for _, m := range f.Networks {
			if m.Config.Bridge == w.bridgeName() && !bridgeGiven {
				return created{}, fmt.Errorf("bridge %s is that of network %q (%s): name another one with --bridge", m.Config.Bridge, f.Network, f.Path)
			}
		}
	}
	if _, err := net.InterfaceByName(w.bridgeName()); err == nil && !bridgeGiven {
		return created{}, fmt.Errorf("the host has an interface %s already: name a bridge with --bridge, or remove what a network of that name left: lnctl network rm %s", w.bridgeName(), w.name)
	}
	chosen, err := w.choose(inUse, files)
	if err != nil {
		return created{}, err
	}
	return w.write(files, chosen)
}

// check refuses flags that contradict each other, and completes them.
func (w *wish) check() error {
	if w.internal {
		w.like = "internal"
	}
	if err := model.ValidateName("network name", w.name); err != nil {
		return &console.UsageError{Err: err}
	}
	if !slices.Contains([]string{"docker", "kubernetes", "internal"}, w.like) {
		return console.Usage("--like %q: want docker, kubernetes or internal", w.like)
	}
	if w.like == "internal" && w.mode != "" {
		return console.Usage("--gateway-mode %s: an internal network has none", w.mode)
	}
	if w.bridge != "" && !model.ValidBridgeName(w.bridge) {
		return console.Usage("--bridge %q: want a name of 1 to 15 letters, digits and signs", w.bridge)
	}
	if n, err := strconv.Atoi(w.mtu); w.mtu != "auto" && (err != nil || n < 68 || n > 65535) {
		return console.Usage("--mtu %q: want auto, or 68 to 65535 bytes", w.mtu)
	}
	if w.prefix == "" || strings.ContainsAny(w.prefix, "/ ") || strings.HasPrefix(w.prefix, ".") {
		return console.Usage("--file-prefix %q: want the beginning of a file's name, as 50", w.prefix)
	}
	if !filepath.IsAbs(w.confDir) {
		return console.Usage("--conf-dir %q: want an absolute path", w.confDir)
	}
	if len(w.subnets) == 0 {
		w.subnets = []string{"auto"}
		if w.ipv6 {
			w.subnets = []string{"auto", "auto6"}
		}
	} else if w.ipv6 {
		return console.Usage("--ipv6 is for networks without --subnet: name the IPv6 subnet, or auto6")
	}
	return nil
}

func (w wish) bridgeName() string {
	if w.bridge != "" {
		return w.bridge
	}
	return model.BridgeName(w.name)
}

// choose returns the subnets, of which none overlaps what is in use.
func (w wish) choose(inUse InUse, files []netconf.File) ([]netip.Prefix, error) {
	used, err := inUse()
	if err != nil {
		return nil, err
	}
	pools, err := subnets.LoadPools("")
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, s := range w.subnets {
		var p netip.Prefix
		switch {
		case strings.HasPrefix(s, "auto"):
			want, err := subnets.ParseRequest(s)
			if err != nil {
				return nil, console.Usage("--subnet %q: want auto or auto6, or one of these with a length as auto/24", s)
			}
			taken := slices.Concat(used, all)
			for _, f := range files {
				taken = append(taken, f.Subnets...)
			}
			if p, err = subnets.Choose(pools, taken, want); err != nil {
				return nil, err
			}
		default:
			if p, err = netip.ParsePrefix(s); err != nil {
				return nil, console.Usage("--subnet %q: want a prefix as 10.1.0.0/24, or auto", s)
			}
			if err := clear(p, used, files); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(all, func(o netip.Prefix) bool { return o.Addr().Is6() == p.Addr().Is6() }) {
			return nil, console.Usage("--subnet %s: want one for each address family at most", s)
		}
		all = append(all, p)
	}
	return all, nil
}

// clear says what a subnet overlaps.
func clear(p netip.Prefix, used []netip.Prefix, files []netconf.File) error {
	for _, f := range files {
		for _, o := range f.Subnets {
			if o.Overlaps(p) {
				return fmt.Errorf("--subnet %s overlaps %s of network %q (%s)", p, o, f.Network, f.Path)
			}
		}
	}
	for _, o := range used {
		if o.Overlaps(p) && o.Bits() > 0 {
			return fmt.Errorf("--subnet %s overlaps %s, which is a route, an address or a name server of this host, or a network of it", p, o)
		}
	}
	return nil
}

// plugin is bridge-ln in the configuration. The order of the fields is that of the file.
type plugin struct {
	Type             string          `json:"type"`
	Bridge           string          `json:"bridge"`
	IsGateway        bool            `json:"isGateway,omitempty"`
	IsDefaultGateway bool            `json:"isDefaultGateway,omitempty"`
	IPMasq           bool            `json:"ipMasq,omitempty"`
	GatewayMode      string          `json:"gatewayMode,omitempty"`
	Internal         bool            `json:"internal,omitempty"`
	ICC              *bool           `json:"icc,omitempty"`
	HairpinMode      bool            `json:"hairpinMode,omitempty"`
	MTU              any             `json:"mtu"`
	Names            bool            `json:"names,omitempty"`
	Capabilities     map[string]bool `json:"capabilities,omitempty"`
	IPAM             any             `json:"ipam"`
}

func (w wish) plugin(chosen []netip.Prefix) plugin {
	p := plugin{Type: netconf.Bridge.String(), Bridge: w.bridgeName(), GatewayMode: w.mode, Names: w.names, MTU: w.mtu}
	if n, err := strconv.Atoi(w.mtu); err == nil {
		p.MTU = n
	}
	if w.noICC {
		p.ICC = new(bool)
	}
	switch {
	case w.like == "internal":
		p.IsGateway, p.Internal = true, true
	case w.like == "kubernetes" && w.mode == "":
		p.IsDefaultGateway, p.IPMasq = true, true
	case w.mode == "":
		p.GatewayMode = "nat"
	}
	if w.like != "internal" && w.mode != "isolated" {
		p.HairpinMode, p.Capabilities = w.like == "kubernetes", map[string]bool{"portMappings": true}
	}
	type subnet struct {
		Subnet string `json:"subnet"`
	}
	var ranges [][]subnet
	for _, s := range chosen {
		ranges = append(ranges, []subnet{{s.String()}})
	}
	p.IPAM = struct {
		Type   string     `json:"type"`
		Ranges [][]subnet `json:"ranges"`
	}{netconf.IPAM.String(), ranges}
	return p
}

func (w wish) write(files []netconf.File, chosen []netip.Prefix) (created, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(struct {
		CNIVersion string   `json:"cniVersion"`
		Name       string   `json:"name"`
		Plugins    []plugin `json:"plugins"`
	}{w.version, w.name, []plugin{w.plugin(chosen)}})
	if err != nil {
		return created{}, err
	}
	path := filepath.Join(w.confDir, w.prefix+"-"+w.name+".conflist")
	for _, f := range lint(netconf.ReadData(path, text.Bytes())) { // what the flags ask for, ADD would refuse
		if f.Severity == bad {
			return created{}, console.Usage("%s", f.Found)
		}
	}
	made := created{Network: w.name, File: path, Bridge: w.bridgeName(), Config: text.Bytes(), Written: !w.dry, Takes: path}
	for _, s := range chosen {
		made.Subnets = append(made.Subnets, s.String())
	}
	if len(files) > 0 && files[0].Path < path {
		made.Takes = files[0].Path
	}
	if w.dry {
		return made, nil
	}
	return made, writeNew(path, text.Bytes())
}

func (c created) write(out io.Writer) error {
	if !c.Written {
		_, err := out.Write(c.Config)
		return err
	}
	_, err := fmt.Fprintf(out, "network %s: %s on bridge %s\nwritten to %s\n", c.Network, strings.Join(c.Subnets, ", "), c.Bridge, c.File)
	if c.Takes == c.File {
		_, lineErr := fmt.Fprintln(out, "it is the first file: a runtime that takes one network alone takes this one")
		err = errors.Join(err, lineErr)
	}
	return err
}

// lockWait is how long a create waits for others, each of which takes milliseconds.
const lockWait = 30 * time.Second

// lockDir makes the directory, waits for other creates, and keeps them out until unlock is
// called.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX, lockWait, dir); err != nil {
		return nil, fmt.Errorf("another lnctl network create is under way: %w", err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

// writeNew writes a file that is not there yet. A reader sees all of it or nothing, and its
// name until then is none that runtimes read.
func writeNew(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".lnctl-*.new")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // which does not replace a file
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
