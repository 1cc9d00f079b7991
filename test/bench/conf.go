package main

import "fmt"

// A configuration is the conflist of a chain; %d is the second byte of its
// subnet, which is a /16 so that there is room for everything.

const oursBare = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge-ln","bridge":"bench0","isGateway":true,
	 "ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.%d.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

const theirsBare = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"bench0","isGateway":true,
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.%d.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

// Full is masquerade, isolation and ports. Ours is one plugin.
const oursFull = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge-ln","bridge":"bench0","gatewayMode":"nat","capabilities":{"portMappings":true},
	 "ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.%d.0.0/16"}]]}}]}`

const oursChained = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge-ln","bridge":"bench0","gatewayMode":"nat",
	 "ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.%d.0.0/16"}]]}},
	{"type":"portmap-ln","capabilities":{"portMappings":true}}]}`

// The reference isolates nothing with nftables: its firewall plugin knows iptables only.
const theirsNFTables = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"bench0","isDefaultGateway":true,"ipMasq":true,"ipMasqBackend":"nftables",
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.%d.0.0/16"}]]}},
	{"type":"portmap","backend":"nftables","snat":true,"capabilities":{"portMappings":true}}]}`

const theirsIPTables = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"bench0","isDefaultGateway":true,"ipMasq":true,"ipMasqBackend":"iptables",
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.%d.0.0/16"}]]}},
	{"type":"portmap","backend":"iptables","snat":true,"capabilities":{"portMappings":true}},
	{"type":"firewall","backend":"iptables","ingressPolicy":"same-bridge"}]}`

// Names of the contestants.
const (
	nameOurs     = "ours"
	nameFast     = "ours, fast path"
	nameChained  = "ours, portmap-ln behind bridge-ln"
	nameNFTables = "reference, nftables"
	nameIPTables = "reference, iptables"
	nameTheirs   = "reference"
	nameFloor    = "kernel floor, a process"
	nameRequests = "kernel floor, its requests"
)

// newBare are ours and the reference's chain of a bridge and addresses.
func newBare() ([]*chain, error) {
	return newChains([]contestant{{nameOurs, oursBare, 0}, {nameTheirs, theirsBare, 0}})
}

// fullContestants publish one port with each container.
var fullContestants = []contestant{
	{nameOurs, oursFull, 1}, {nameChained, oursChained, 1},
	{nameNFTables, theirsNFTables, 1}, {nameIPTables, theirsIPTables, 1},
}

// contestant is a chain to be made; ports is how many a container publishes.
type contestant struct {
	name, conf string
	ports      int
}

// newChains makes each chain in a world of its own.
func newChains(all []contestant) ([]*chain, error) {
	var chains []*chain
	for i, c := range all {
		w, err := newWorld()
		if err != nil {
			return nil, err
		}
		made, err := newChain(c.name, fmt.Sprintf(c.conf, 61+i), w)
		if err != nil {
			return nil, err
		}
		made.ports, made.presentPorts = c.ports, c.ports
		chains = append(chains, made)
	}
	return chains, nil
}
