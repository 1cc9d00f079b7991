// Package diagnostics is what ln-agent says about itself, in JSON over HTTP at a Unix socket, and
// how lnctl asks for it. Nothing can be changed there.
package diagnostics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Socket is where ln-agent answers, by its state directory. Only root reaches it.
func Socket(stateDir string) string { return filepath.Join(stateDir, "overlay", "http.sock") }

// State is what an agent knows at a time.
type State struct {
	Status   Status
	Networks []Network
	Peers    []Peer
	Blocks   []Block
}

// Status is about the agent itself.
type Status struct {
	Node    string    `json:"node,omitempty"`    // this host's name among the others
	Address string    `json:"address,omitempty"` // and its address
	Started time.Time `json:"started"`
	// Registry is "etcd" or "Kubernetes"; empty: the agent answers for this host alone.
	Registry string `json:"registry,omitempty"`
	// Connected says that there is a session with the registry.
	Connected bool `json:"connected"`
	// Tasks are what the agent does, as "names".
	Tasks    []string `json:"tasks"`
	Networks int      `json:"networks"`
	Peers    int      `json:"peers"` // of all networks, each host once
	// Problems are the lines of /healthz; none: all is well.
	Problems []string `json:"problems"`
}

// Network is a network that the agent keeps.
type Network struct {
	Name       string   `json:"name"`
	Subnets    []string `json:"subnets"`
	VNI        int      `json:"vni,omitempty"` // 0: it is encrypted, or not agreed on yet
	Port       int      `json:"port,omitempty"`
	Encryption string   `json:"encryption,omitempty"`
	KeyEpoch   int      `json:"keyEpoch,omitempty"`
	Blocks     []string `json:"blocks"` // of this host
	Held       uint64   `json:"held"`   // addresses in use, of Capacity
	Capacity   uint64   `json:"capacity"`
	Peers      int      `json:"peers"`      // other hosts
	Programmed int      `json:"programmed"` // of which all is in the kernel
	// Synced is when kernel and registry agreed last; nil: not yet.
	Synced   *time.Time `json:"synced,omitempty"`
	Problems []string   `json:"problems"`
}

// Peer is another host of a network.
type Peer struct {
	Network string   `json:"network"`
	Node    string   `json:"node"`
	Address string   `json:"address"`
	Blocks  []string `json:"blocks"`
	Live    bool     `json:"live"` // it has been heard of lately
}

// Block is a part of a network's subnet that a host has.
type Block struct {
	Network string `json:"network"`
	Block   string `json:"block"`
	Node    string `json:"node"`
	Own     bool   `json:"own"` // of this host
	Live    bool   `json:"live"`
}

// patience is how long an agent may take.
const patience = 10 * time.Second

// mostAnswer is more than any answer has, in bytes.
const mostAnswer = 64 << 20

// ErrAway says that no agent answers.
var ErrAway = errors.New("no ln-agent answers")

// Get asks the agent for a path, as "/v1/status", and decodes the answer. It speaks HTTP/1.0 by
// itself: net/http would make lnctl larger by a third.
func Get(ctx context.Context, socket, path string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.0\r\nHost: ln-agent\r\n\r\n"); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(c, mostAnswer))
	if err != nil {
		return err
	}
	body, err := bodyOf(data)
	if err != nil {
		return fmt.Errorf("ln-agent: %s: %w", path, err)
	}
	return json.Unmarshal(body, to)
}

// bodyOf returns the body of an answer whose status is 200, and is complete.
func bodyOf(data []byte) ([]byte, error) {
	head, body, found := bytes.Cut(data, []byte("\r\n\r\n"))
	lines := strings.Split(string(head), "\r\n")
	words := strings.SplitN(lines[0], " ", 3)
	if !found || len(words) < 3 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return nil, errors.New("the answer is not of HTTP")
	}
	if words[1] != "200" {
		return nil, fmt.Errorf("%s: %s", words[1]+" "+words[2], strings.TrimSpace(string(body)))
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		if n, err := strconv.Atoi(strings.TrimSpace(value)); strings.EqualFold(name, "Content-Length") && (err != nil || n != len(body)) {
			return nil, fmt.Errorf("the answer has %d bytes of %s", len(body), strings.TrimSpace(value))
		}
	}
	return body, nil
}
