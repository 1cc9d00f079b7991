package nodefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// File is what an agent tells the plugins of a network that spans hosts:
// <stateDir>/overlay/<network>.json. The keys that a plugin needs for each container come
// first.
type File struct {
	// Version of the format; 0 is 1, which had no such key at first.
	Version int            `json:"version,omitempty"`
	Network string         `json:"network"`
	VNI     int            `json:"vni"`
	Port    int            `json:"port"`
	Device  string         `json:"device,omitempty"`
	MTU     int            `json:"mtu"`    // of containers' packets to other hosts, in bytes
	Self    netip.Addr     `json:"self"`   // this host's address
	Blocks  []netip.Prefix `json:"blocks"` // this host's
	// Until is when this host's right to its blocks ends, in seconds since boot
	// (CLOCK_BOOTTIME), unless the agent puts it off; 0: never.
	Until   int64          `json:"until,omitempty"`
	Subnets []netip.Prefix `json:"subnets"`
	// Encryption of the network; empty: none. Epochs are then those of which this host has a
	// device, the newest first.
	Encryption model.Encryption `json:"encryption,omitempty"`
	Epochs     []int            `json:"keyEpochs,omitempty"`
	// DirectRouting says that nodes on the same segment are led to without a tunnel.
	DirectRouting bool `json:"directRouting,omitempty"`
	// Origin is where the agent read it.
	Origin Origin `json:"origin"`
	Nodes  []Node `json:"nodes"` // all of them, this host, too
}

// Origin is a moment in the history of etcd. The agent knows by it
// whether etcd was restored from an older copy. The zero value knows nothing.
type Origin struct {
	Lineage    string `json:"lineage,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Cluster    string `json:"cluster,omitempty"`
	Revision   int64  `json:"revision,omitempty"`
	// Witness is a key of etcd that was there as of Revision, made at WitnessRevision.
	Witness         string `json:"witness,omitempty"`
	WitnessRevision int64  `json:"witnessRevision,omitempty"`
}

// Node is a Node of a NodeFile.
type Node struct {
	Name    string         `json:"name"`
	Address netip.Addr     `json:"address"`
	Blocks  []netip.Prefix `json:"blocks"`
	// Epochs are those of the claims of Blocks, in their order: generation and
	// revision.
	Epochs [][2]int64 `json:"epochs,omitempty"`
	// Keys are the host's public ones, where the network is encrypted, and By is the epoch of
	// the device by which this host sends there.
	Keys []model.EpochKey `json:"keys,omitempty"`
	By   int              `json:"by,omitempty"`
	// Direct is how this host reaches it without a tunnel; missing: only by the tunnel.
	Direct *model.Direct `json:"direct,omitempty"`
}

// Path returns where the node file of a network is.
func Path(stateDir, network string) string {
	path, err := state.New(stateDir).NodeFile(network)
	if err != nil {
		return filepath.Join(stateDir, network) // names nothing: the network's name is refused elsewhere
	}
	return path
}

// Uptime is the time since boot, in seconds, sleep included: the clock of
// NodeFile.Until, which no program can set.
func Uptime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return ts.Sec
}

// Tunnel is what the file says of the tunnel.
func (f File) Tunnel() model.TunnelConfig {
	t := model.TunnelConfig{Agent: true, Self: f.Self, Subnets: f.Subnets, VNI: f.VNI, Port: f.Port, Device: f.Device,
		Encryption: f.Encryption, Epochs: f.Epochs, DirectRouting: f.DirectRouting}
	for _, n := range f.Nodes {
		t.Nodes = append(t.Nodes, model.Node{Address: n.Address, Subnets: n.Blocks, Keys: n.Keys, Epoch: n.By, Direct: n.Direct})
	}
	return t
}

// Apply returns a configuration with what the file says of the tunnel. An MTU
// that is set stays.
func (f File) Apply(c model.NetworkConfig) model.NetworkConfig {
	c.Tunnel = f.Tunnel()
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
func (e *NotReadyError) Is(target error) bool { return target == model.ErrNotReady }

// ReadHead reads what the node file of a network says of this host. Nodes
// is this host alone: the list of the others, which may be long, is left
// unread. It is ErrNotReady where the file is missing, has no block of this
// host's, or this host's right to them is over.
func ReadHead(stateDir, network string) (File, error) {
	return ReadHeadIn(state.New(stateDir), stateDir, network)
}

// ReadHeadIn is ReadNodeHead of the files in dir.
func ReadHeadIn(dir Files, stateDir, network string) (File, error) {
	data, path, err := loadNodeFile(dir, stateDir, network)
	if err != nil {
		return File{}, err
	}
	if head, _, found := bytes.Cut(data, []byte(`,"nodes":[`)); found { // they come last
		data = append(slices.Clip(head), '}')
	}
	f, err := parseNodeFile(data, network, path)
	if err != nil {
		return f, err
	}
	not := func(why string) error { return &NotReadyError{Network: network, File: path, Why: why} }
	switch {
	case len(f.Blocks) == 0:
		return f, not("has no block of this host's")
	case f.Until != 0 && f.Until <= Uptime():
		return f, not("is out of date: ln-agent has not reached etcd for longer than its --block-ttl, and others may have the block by now")
	}
	f.Nodes = []Node{{Address: f.Self, Blocks: f.Blocks}}
	return f, nil
}

// nodeFileVersion is the newest format, which is written of networks that are encrypted: a
// plugin that does not know of that would send in clear. Of others plainVersion is.
const (
	nodeFileVersion = 2
	plainVersion    = 1
)

// nodeFileEnd is the last line of a file, behind those of the nodes.
const nodeFileEnd = "\n]}\n"

// Files are where node files are.
type Files interface {
	LoadNodes(network string) ([]byte, error)
}

// loadNodeFile returns a file that is whole. A user that may write there could put
// something else in its place, or half of it.
func loadNodeFile(dir Files, stateDir, network string) (data []byte, path string, err error) {
	path = Path(stateDir, network)
	data, err = dir.LoadNodes(network)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, path, &NotReadyError{Network: network, File: path, Why: "is missing"}
	case err != nil:
		return nil, path, fmt.Errorf("node file %s: %w", path, err)
	case !bytes.HasSuffix(data, []byte(nodeFileEnd)):
		return nil, path, fmt.Errorf("node file %s: is empty, or only a part of one: remove it, and ln-agent writes it again", path)
	}
	return data, path, nil
}

// parseNodeFile reads a file or its head, and refuses one that is not what its
// name says.
func parseNodeFile(data []byte, network, path string) (f File, err error) {
	err = json.Unmarshal(data, &f)
	switch {
	case err != nil:
	case f.Version > nodeFileVersion:
		err = fmt.Errorf("version %d: want %d at most; is ln-agent newer than the plugins?", f.Version, nodeFileVersion)
	case f.Network != network:
		err = fmt.Errorf("it is of network %q, want %q", f.Network, network)
	case f.Encryption != "" && f.Encryption != model.WireGuard:
		err = fmt.Errorf("encryption %q: want \"wireguard\"; is ln-agent newer than the plugins?", f.Encryption)
	case !f.Self.IsValid() || f.Port < 1 || f.Port > 65535 || f.VNI < 1:
		err = errors.New("want self, vni and port")
	}
	if err != nil {
		return File{}, fmt.Errorf("node file %s: %w", path, err)
	}
	return f, nil
}

// Encode writes a line for each node, so that a person can read it.
func (f File) Encode() ([]byte, error) {
	nodes := f.Nodes
	f.Version, f.Nodes = plainVersion, []Node{}
	if f.Encryption != "" {
		f.Version = nodeFileVersion
	}
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
	out.WriteString(nodeFileEnd)
	return out.Bytes(), nil
}

// Read reads the node file of a network in dir; ErrNotReady if there is none.
func Read(dir Files, stateDir, network string) (File, error) {
	data, path, err := loadNodeFile(dir, stateDir, network)
	if err != nil {
		return File{}, err
	}
	return parseNodeFile(data, network, path)
}
