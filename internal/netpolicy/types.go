package netpolicy

import (
	"cmp"
	"math"
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Key names a pod or a policy.
type Key struct{ Namespace, Name string }

// String is "namespace/name".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Name, o.Name))
}

// Pod is a pod with a network of its own; one that has its node's is none for policies.
type Pod struct {
	Key
	Labels map[string]string
	Addrs  []netip.Addr
	Ports  []Port // of its containers, those with a name
	// Local says that the pod is on this node: only for these is anything isolated.
	Local bool
}

// Port is a port of a container that policies may name.
type Port struct {
	Name     string
	Protocol firewall.Protocol
	Number   uint16
}

// Class stands for all addresses that policies treat alike. 0 is none; of Pair.Peer: every address.
type Class uint32

// AnyPod, as Pair.Peer, is every pod of the cluster. It is apart from other classes, as policies often
// say so: each of them would be in an entry of its own.
const AnyPod Class = math.MaxUint32

// Pair is the class of a pod that is isolated, and that of the other end of a connection.
type Pair struct{ Target, Peer Class }

// Span are ports of a protocol, From and To included.
type Span struct {
	Protocol firewall.Protocol
	From, To uint16
}

// Profile stands for a set of ports; AllPorts is every protocol.
type Profile uint32

// AllPorts allows all.
const AllPorts Profile = 1

// Range is a class of addresses that are those of no pod, or may be.
type Range struct {
	From, To netip.Addr
	Class    Class
}

// Rules are what a node has to enforce.
type Rules struct {
	// In and Out are the target classes of the node's isolated pods: of what comes to them, and of
	// what they begin. An address that is missing is not isolated in that direction.
	In, Out map[netip.Addr]Class
	// Peers and Ranges are the classes of the other ends, of pods and of blocks. An address that is
	// in neither has only what every address has.
	Peers  Table[Class]
	Ranges []Range
	// Pods are the addresses of all pods; none where nothing is allowed to AnyPod.
	Pods Table[bool]
	// Allowed is what may pass; all else of isolated pods may not. Ports are those of profiles other
	// than AllPorts: in order, and apart from each other.
	Allowed map[Pair]Profile
	Ports   map[Profile][]Span
}
