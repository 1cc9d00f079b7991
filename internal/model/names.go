package model

import (
	"slices"
	"strings"
)

// DefaultDomain is the domain of a network that has names and says no other. No
// server of the internet ever has names of it (ICANN, 29 July 2024).
const DefaultDomain = "libnet.internal"

// Names are what a container is called on a network.
type Names struct {
	// Own are names that the network's other containers find it by, the best one
	// first: it is the answer for the name of an address.
	Own []string
	// Domain of the network; each name stands below it, too.
	Domain string
	// Responder answers for them.
	Responder Responder
}

// Responder is what answers queries for names.
type Responder string

// The responders.
const (
	RespondAgent Responder = "agent" // ln-agent alone
	RespondBPF   Responder = "bpf"   // the kernel, and ln-agent if it runs
	RespondAuto  Responder = "auto"  // the kernel, for a container that comes while no ln-agent answers
)

// Responders are all that there are.
func Responders() []Responder { return []Responder{RespondAgent, RespondBPF, RespondAuto} }

const (
	maxName  = 253 // bytes of a name in DNS, as text
	maxLabel = 63
	shortID  = 12 // digits of a container ID by which runtimes show it
)

// WantDNSName is what ValidDNSName wants, for errors.
const WantDNSName = "want labels of 1 to 63 letters, digits, '-' and '_' with dots between, at most 253 bytes"

// ValidDNSName says that a name can be asked for. A dot at its end counts for nothing.
func ValidDNSName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		bad := strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
		if label == "" || len(label) > maxLabel || bad {
			return false
		}
	}
	return true
}

// NamesOf returns the names of a container: those that were chosen, each once, and the
// beginning of its ID.
func NamesOf(chosen []string, containerID, domain string, by Responder) *Names {
	n := &Names{Domain: strings.TrimSuffix(domain, "."), Responder: by}
	id := containerID[:min(shortID, len(containerID))]
	for _, name := range append(slices.Clone(chosen), id) {
		name = strings.TrimSuffix(name, ".")
		same := func(other string) bool { return strings.EqualFold(name, other) }
		if ValidDNSName(name) && !slices.ContainsFunc(n.Own, same) {
			n.Own = append(n.Own, name)
		}
	}
	return n
}
