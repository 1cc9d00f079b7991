package engine

import (
	"encoding/json"
	"maps"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/model"
)

// notes is what a network's record keeps for its makers. Nothing here acts by it.
type notes struct {
	Labels  map[string]string `json:",omitempty"`
	Options map[string]any    `json:",omitempty"` // of the driver
	// IPAMConf is the configuration of an IPAM that is not a Pool; nil: unknown.
	IPAMConf json.RawMessage `json:",omitempty"`
}

// WithIPAMConf keeps the configuration that the network's IPAM has, for FromConf.
func WithIPAMConf(conf json.RawMessage) NetworkOption {
	return func(s *networkSpec) { s.notes.IPAMConf = conf }
}

// FromConf returns the network with the IPAM that make has for the configuration of
// WithIPAMConf; the network itself if there is none, or make returns nil.
func (n *Network) FromConf(make func(kind string, conf json.RawMessage) address.IPAM) *Network {
	if n.ipam != nil || n.notes.IPAMConf == nil {
		return n
	}
	if ipam := make(n.foreign, n.notes.IPAMConf); ipam != nil {
		n = n.own()
		n.ipam = ipam
	}
	return n
}

// WithLabels keeps labels with the network.
func WithLabels(labels map[string]string) NetworkOption {
	return func(s *networkSpec) { s.notes.Labels = maps.Clone(labels) }
}

// WithDriverOptions keeps the options that the configuration was made of.
func WithDriverOptions(options map[string]any) NetworkOption {
	return func(s *networkSpec) { s.notes.Options = maps.Clone(options) }
}

// Labels returns a copy of the network's labels.
func (n *Network) Labels() map[string]string { return maps.Clone(n.notes.Labels) }

// DriverOptions returns a copy of the options that the network was made of.
func (n *Network) DriverOptions() map[string]any { return maps.Clone(n.notes.Options) }

// keepNotes has what a caller does not know of, as a plugin that brings its whole
// configuration, outlive the network's new record.
func (n *Network) keepNotes() {
	rec, err := n.c.networks.LoadNetwork(n.def.Name)
	if err != nil {
		return // there is nothing to keep
	}
	old, err := n.c.networkOf(rec)
	if err != nil {
		return
	}
	n.kept = n.kept || old.kept
	if n.notes.Labels == nil && n.notes.Options == nil && n.notes.IPAMConf == nil {
		n.notes = old.notes
	}
}

// ID returns a hash of the network's name.
func (n *Network) ID() string { return model.Digest(model.NetworkOwner(n.def.Name)) }
