package libnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/state"
)

// NodeFile is what an agent tells the plugins of a network that spans hosts:
// <stateDir>/overlay/<network>.json. What a plugin needs for each container
// comes first.
type NodeFile struct {
	Network string         `json:"network"`
	VNI     int            `json:"vni"`
	Port    int            `json:"port"`
	Device  string         `json:"device,omitempty"`
	MTU     int            `json:"mtu"`    // of the tunnel, in bytes
	Self    netip.Addr     `json:"self"`   // this host's address
	Blocks  []netip.Prefix `json:"blocks"` // this host's
	// Until is when this host's right to its blocks ends, in seconds since boot
	// (CLOCK_BOOTTIME), unless the agent puts it off; 0: never.
	Until   int64          `json:"until,omitempty"`
	Subnets []netip.Prefix `json:"subnets"`
	Nodes   []NamedNode    `json:"nodes"` // all of them, this host, too
}

// NamedNode is a Node of a NodeFile.
type NamedNode struct {
	Name    string         `json:"name"`
	Address netip.Addr     `json:"address"`
	Blocks  []netip.Prefix `json:"blocks"`
}

// NodeFilePath returns where the node file of a network is.
func NodeFilePath(stateDir, network string) string {
	path, err := state.New(stateDir).NodeFile(network)
	if err != nil {
		return filepath.Join(stateDir, network) // names nothing: the network's name is refused elsewhere
	}
	return path
}

// Uptime is the time since boot, in seconds, sleep included: the clock of
// NodeFile.Until, which nobody sets.
func Uptime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return ts.Sec
}

// tunnel is what the file says of the tunnel.
func (f NodeFile) tunnel() TunnelConfig {
	t := TunnelConfig{Agent: true, Self: f.Self, Subnets: f.Subnets, VNI: f.VNI, Port: f.Port, Device: f.Device}
	for _, n := range f.Nodes {
		t.Nodes = append(t.Nodes, Node{Address: n.Address, Subnets: n.Blocks})
	}
	return t
}

// Apply returns a configuration with what the file says of the tunnel. An MTU
// that is set stays.
func (f NodeFile) Apply(c NetworkConfig) NetworkConfig {
	c.Tunnel = f.tunnel()
	if c.MTU == 0 {
		c.MTU = f.MTU
	}
	return c
}

// NotReadyError says that a network has nothing to give on this host yet, and
// what to do. It is ErrNotReady.
type NotReadyError struct {
	Network, File string
	Why           string // "is missing"
}

// Error names the network, the file, and what to do.
func (e *NotReadyError) Error() string {
	return fmt.Sprintf("network %q has no block on this host: %s %s; it is ln-agent that writes it: see that it runs, and what its log says", e.Network, e.File, e.Why)
}

// Is says that it is ErrNotReady.
func (e *NotReadyError) Is(target error) bool { return target == ErrNotReady }

// NodeFile reads the node file of a network; ErrNotReady if there is none.
func (c *Controller) NodeFile(network string) (NodeFile, error) {
	var f NodeFile
	path := NodeFilePath(c.stateDir, network)
	data, err := c.nodeFiles.LoadNodes(network)
	if errors.Is(err, state.ErrNotFound) {
		return f, &NotReadyError{Network: network, File: path, Why: "is missing"}
	}
	if err == nil {
		if err = json.Unmarshal(data, &f); err != nil {
			err = fmt.Errorf("node file %s: %w", path, err)
		}
	}
	return f, err
}

// SaveNodeFile writes the node file of a network, unless it is there already.
// The plugins then take addresses out of its blocks.
func (c *Controller) SaveNodeFile(f NodeFile) (changed bool, err error) {
	data, err := f.encode()
	if err != nil {
		return false, err
	}
	if before, err := c.nodeFiles.LoadNodes(f.Network); err == nil && bytes.Equal(before, data) {
		return false, nil
	}
	return true, c.nodeFiles.SaveNodes(f.Network, data)
}

// encode writes a line for each node, so that a person can read it.
func (f NodeFile) encode() ([]byte, error) {
	nodes := f.Nodes
	f.Nodes = []NamedNode{}
	head, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Write(bytes.TrimSuffix(head, []byte("]}")))
	for i, n := range nodes {
		line, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n  ")
		out.Write(line)
	}
	out.WriteString("\n]}\n")
	return out.Bytes(), nil
}

// DeleteNodeFile has the plugins give no more addresses of a network. A missing
// file is success.
func (c *Controller) DeleteNodeFile(network string) error { return c.nodeFiles.DeleteNodes(network) }

// NodeFiles returns the names of the networks that have a node file.
func (c *Controller) NodeFiles() ([]string, error) { return c.nodeFiles.NodeFiles() }

// withPeers returns the network with the other hosts of the node file, where an
// agent keeps these.
func (n *Network) withPeers() (*Network, error) {
	if !n.config.Tunnel.Agent || len(n.config.Tunnel.Nodes) > 1 {
		return n, nil
	}
	f, err := n.c.NodeFile(n.name)
	if err != nil {
		return nil, err
	}
	full := *n
	full.config.Tunnel.Nodes = slices.Clip(f.tunnel().Nodes)
	return &full, nil
}

// agentKeeps says that the tunnel and its rules are an agent's.
func (n *Network) agentKeeps() (bool, error) {
	if n.driver != driverOverlay {
		return false, nil
	}
	return n.c.nodeFiles.HasNodes(n.name)
}
