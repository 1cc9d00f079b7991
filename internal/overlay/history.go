package overlay

import (
	"cmp"
	"net/netip"
)

// Epoch orders the claims of a block: of two that contradict each other, as
// after the registry was restored from an older copy, the higher one is right.
// The zero Epoch is of a claim from before there were any.
type Epoch struct {
	// Generation of the registry's history; see History.
	Generation int64
	// Revision of the registry that the claim was made at.
	Revision int64
}

// Compare is as of cmp.Compare.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Generation, o.Generation), cmp.Compare(e.Revision, o.Revision))
}

// History says which past a registry has. A registry that was restored from an
// older copy has lost some of it, and does not know that; its hosts do.
type History struct {
	// Lineage is made up once, with the first entry, and comes back with any copy
	// of it: two that differ have nothing to do with each other.
	Lineage string
	// Generation is raised by the host that notices that some of the past is lost.
	Generation int64
	// Cluster is what the registry calls itself. A copy may have another one.
	Cluster string
}

// Moment is where in a History a host was.
type Moment struct {
	History
	Revision int64
	// Witness is the entry of the latest claim that it saw, and WitnessRevision the
	// one at which that was made: a registry that does not have it as of Revision
	// has another past. Empty: there was none.
	Witness         string
	WitnessRevision int64
}

// Lost says that a registry which is at the moment now has lost what a host saw
// at m: it is a copy from before, or others have found that it is. A moment of
// another lineage tells nothing. A registry without any lineage has lost all.
// That nothing is lost only Witness can tell: the copy may be at a later revision
// by now.
func (m Moment) Lost(now Moment) bool {
	switch {
	case m.Lineage == "":
		return false
	case now.Lineage == "":
		return true
	case m.Lineage != now.Lineage:
		return false
	}
	return m.Cluster != now.Cluster || m.Revision > now.Revision || m.Generation < now.Generation
}

// Follows says that a registry which is at the moment now still has all that a
// host saw at m.
func (m Moment) Follows(now Moment) bool {
	return m.Lineage != "" && m.Lineage == now.Lineage && !m.Lost(now)
}

// Known is what a host knows of a network without asking the registry.
type Known struct {
	Network string
	At      Moment // as of when
	Hosts   []KnownHost
}

// KnownHost is a host of a Known network.
type KnownHost struct {
	Name    string
	Address netip.Addr
	Blocks  map[netip.Prefix]Epoch
}
