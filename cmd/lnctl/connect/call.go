package connect

import (
	"bytes"
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

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/plugin"
	"github.com/libnet-cni/libnet/internal/state"
)

// call is a call of ADD, as a runtime would make it.
type call struct {
	file, network string
	plugin        netconf.Plugin
	others        []string                   // plugins of the list, which are not called
	conf          map[string]json.RawMessage // of the plugin
	runtime       map[string]any             // runtimeConfig
	published     []string
	named         bool // the network has names
	container     string
	netns, ifName string
	fixed         bool                   // the caller gave ifName
	taken         func(name string) bool // of interfaces of the container
}

// prepare reads the network's configuration and what the flags ask for.
func (h Host) prepare(w wish) (*call, error) {
	c := &call{network: w.network, runtime: map[string]any{}}
	if err := c.find(*h.ConfDir); err != nil {
		return nil, err
	}
	if err := h.here(*c); err != nil {
		return nil, err
	}
	for _, ip := range w.ips {
		if _, err := netip.ParseAddr(ip); err != nil {
			return nil, console.Usage("--ip %q: want an address, as 10.1.0.9", ip)
		}
	}
	if len(w.ips) > 0 {
		c.runtime["ips"] = w.ips
	}
	if len(w.aliases) > 0 {
		c.runtime["aliases"] = w.aliases
		if !c.named {
			return nil, console.Usage(`--alias: network %q has no names: its configuration lacks "names": true`, w.network)
		}
	}
	var ports []map[string]any
	for _, text := range w.publish {
		p, err := parsePort(text)
		if err != nil {
			return nil, err
		}
		ports, c.published = append(ports, p), append(c.published, text)
	}
	if len(ports) > 0 {
		c.runtime["portMappings"] = ports
	}
	return c, nil
}

// find finds the plugin of ours that a file of the directory has for the network.
func (c *call) find(dir string) error {
	for _, f := range netconf.Files(dir) {
		if f.Network != c.network {
			continue
		}
		if f.Err != nil {
			return fmt.Errorf("%s: %w", f.Path, f.Err)
		}
		if len(f.Networks) == 0 {
			return fmt.Errorf("%s: network %q is not of bridge-ln or overlay-ln", f.Path, f.Network)
		}
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return err
		}
		c.file, c.plugin, c.named = f.Path, f.Networks[0].Plugin, f.Networks[0].Names != nil
		if kind := f.Networks[0].IPAMType; kind != "" && kind != address.PoolType {
			return fmt.Errorf("%s: addresses come from %s, which the runtime alone can ask for them", f.Path, kind)
		}
		return c.take(data)
	}
	return fmt.Errorf("network %q: no configuration of %s has that name", c.network, dir)
}

// take takes the plugin out of a list.
func (c *call) take(data []byte) error {
	var file struct{ Plugins []map[string]json.RawMessage }
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	if len(file.Plugins) == 0 {
		return json.Unmarshal(data, &c.conf)
	}
	for _, p := range file.Plugins {
		var kind string
		if err := json.Unmarshal(p["type"], &kind); err != nil {
			return err
		}
		if kind == c.plugin.String() && c.conf == nil {
			c.conf = p
		} else {
			c.others = append(c.others, kind)
		}
	}
	return nil
}

// here refuses a network whose records are in another state directory.
func (h Host) here(c call) error {
	dir := engine.DefaultStateDir
	if text, has := c.conf["stateDir"]; has {
		if err := json.Unmarshal(text, &dir); err != nil {
			return err
		}
	}
	if filepath.Clean(dir) != filepath.Clean(*h.StateDir) {
		return fmt.Errorf("%s: the records of network %q are in %s: use --state-dir %s, for a container that has its own there", c.file, c.network, dir, dir)
	}
	return nil
}

// names gives the container the names that it has on its other networks.
func (c *call) names(of []state.Endpoint) {
	if !c.named {
		return
	}
	var own []string
	for _, r := range of {
		if r.Names == nil {
			continue
		}
		for _, name := range r.Names.Own {
			if !strings.HasPrefix(r.ContainerID, name) && !slices.Contains(own, name) { // else the ID gives it
				own = append(own, name)
			}
		}
	}
	aliases, _ := c.runtime["aliases"].([]string)
	if own = append(own, aliases...); len(own) > 0 {
		c.runtime["aliases"] = own
	}
}

// mostInterfaces bounds the names that are tried.
const mostInterfaces = 1000

// free is the first of eth0, eth1 and so on, from a number on, that the container lacks.
func (c *call) free(from int) string {
	for i := from; i < mostInterfaces; i++ {
		if name := "eth" + strconv.Itoa(i); !c.taken(name) {
			return name
		}
	}
	return "eth" + strconv.Itoa(mostInterfaces)
}

// add calls the plugin. An interface that another call made meanwhile has it try the next.
func (c *call) add(version string, stderr io.Writer) (made connected, err error) {
	for range mostInterfaces {
		result, err := c.once(version, stderr)
		if err == nil {
			return c.made(result), nil
		}
		if bad := new(types.Error); c.fixed || !errors.As(err, &bad) || bad.Code != cni.CodeTaken || !c.taken(c.ifName) {
			return made, err
		}
		var n int
		if _, scanErr := fmt.Sscanf(c.ifName, "eth%d", &n); scanErr != nil {
			return made, err
		}
		c.ifName = c.free(n + 1)
	}
	return made, err
}

func (c *call) once(version string, stderr io.Writer) (*current.Result, error) {
	conf := map[string]any{}
	for key, value := range c.conf {
		conf[key] = value
	}
	conf["name"], conf["cniVersion"], conf["runtimeConfig"] = c.network, current.ImplementedSpecVersion, c.runtime
	data, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": c.container, "CNI_NETNS": c.netns, "CNI_IFNAME": c.ifName}
	var out bytes.Buffer
	streams := cni.Streams{Stdin: bytes.NewReader(data), Stdout: &out, Stderr: stderr}
	if plugin.Guest(c.plugin, version).Run(func(key string) string { return env[key] }, streams) != 0 {
		bad := &types.Error{}
		if err := json.Unmarshal(out.Bytes(), bad); err != nil {
			return nil, fmt.Errorf("%s: %s", c.plugin, out.Bytes())
		}
		return nil, bad
	}
	result := &current.Result{}
	return result, json.Unmarshal(out.Bytes(), result)
}

func (c *call) made(r *current.Result) connected {
	made := connected{Network: c.network, Container: c.container, Interface: c.ifName, Ports: c.published}
	for _, ip := range r.IPs {
		made.Addresses = append(made.Addresses, ip.Address.String())
	}
	return made
}

// parsePort reads "[IP:]PORT:CONTAINERPORT[/PROTOCOL]".
func parsePort(text string) (map[string]any, error) {
	wrong := console.Usage("--publish %q: want [IP:]PORT:CONTAINERPORT[/PROTOCOL], as 8080:80 or 192.0.2.1:53:53/udp", text)
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	at := strings.LastIndexByte(ports, ':')
	if at < 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return nil, wrong
	}
	host, container := ports[:at], ports[at+1:]
	p := map[string]any{"protocol": protocol}
	if ip, port, err := net.SplitHostPort(host); err == nil {
		if _, err := netip.ParseAddr(ip); err != nil {
			return nil, wrong
		}
		p["hostIP"], host = ip, port
	}
	for key, value := range map[string]string{"hostPort": host, "containerPort": container} {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return nil, wrong
		}
		p[key] = n
	}
	return p, nil
}
