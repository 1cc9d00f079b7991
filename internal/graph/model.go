package graph

import "strings"

// Host is a host as it is drawn, and as -o json prints it.
type Host struct {
	Host     string    `json:"host"`
	Networks []Network `json:"networks"`
}

// Network is one on a host.
type Network struct {
	Name       string      `json:"name"`
	Driver     string      `json:"driver"`
	Bridge     string      `json:"bridge"`
	Subnets    []string    `json:"subnets"`
	Held       uint64      `json:"held"` // addresses; of Capacity
	Capacity   uint64      `json:"capacity"`
	Internal   bool        `json:"internal"`
	Peers      []string    `json:"peers"` // other hosts that it spans
	Containers []Container `json:"containers"`
	Problem    string      `json:"problem,omitempty"`
}

// Container is one on a network.
type Container struct {
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty"` // its first one on a network with names
	Interface string   `json:"interface"`
	Addresses []string `json:"addresses"`
	Ports     []string `json:"ports"` // published, "8080 → 80/tcp"
	Problem   string   `json:"problem,omitempty"`
}

// label is what a card says first. Of the long IDs that runtimes make up the beginning tells
// enough.
func (c Container) label() string {
	const long, enough = 32, 12
	switch {
	case c.Name != "" && !strings.HasPrefix(c.ID, c.Name):
		return c.Name
	case len(c.ID) > long:
		return c.ID[:enough]
	}
	return c.ID
}
