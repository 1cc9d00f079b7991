// Package keydoc has the text about each key of internal/netconf: the type of its value, its default,
// its meaning. People read it, in docs/configuration.md and from lnctl explain; no plugin links it.
package keydoc

import (
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// Text is what people are told about a key.
type Text struct {
	// Path has the names of the key and of those around it, "ipam.ranges.subnet".
	Path string
	From Origin
	Type string // "boolean"
	// Default is what a missing key means, as JSON; empty: nothing.
	Default string
	// Does is its meaning, and Overlay what is different about it with overlay-ln.
	Does, Overlay string
}

// Origin is the reference plugin that a key is from: name, default and meaning are as there.
type Origin string

// Origins of keys. The zero value is libnet, or CNI if netconf says so.
const (
	fromBridge    Origin = "bridge"
	fromHostLocal Origin = "host-local"
	fromPortmap   Origin = "portmap"
	fromFirewall  Origin = "firewall"
)

// Key is a key with its text.
type Key struct {
	netconf.Key
	Text
	// Inside are those of netconf.Key, with their texts.
	Inside []Key
}

// Table returns the keys of a plugin's configuration with those inside, as netconf.Table does.
func Table(p netconf.Plugin) []Key { return explained("", netconf.Table(p)) }

func explained(in string, keys []netconf.Key) (all []Key) {
	for _, k := range keys {
		path := in + k.Name
		all = append(all, Key{Key: k, Text: about(path), Inside: explained(path+".", k.Inside)})
	}
	return all
}

// about returns the text about the key with a path; an empty one if there is none. The ranges of a
// runtime have the keys of other ranges.
func about(path string) Text {
	if key, is := strings.CutPrefix(path, "runtimeConfig.ipRanges."); is {
		path = "ipam.ranges." + key
	}
	for _, section := range sections() {
		if i := slices.IndexFunc(section, func(t Text) bool { return t.Path == path }); i >= 0 {
			return section[i]
		}
	}
	return Text{}
}

func sections() [][]Text { return [][]Text{outermost, inside, ofIPAM} }
