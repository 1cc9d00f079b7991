package address

import (
	"context"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// Claim asks for addresses.
type Claim struct {
	ID model.ID
	// Netns is the path of the container's network namespace and NetnsID its
	// identity; zero: not known yet.
	Netns   string
	NetnsID life.NetnsID
	// Addresses are those to get, one per range set at most; none: any.
	Addresses []netip.Addr
	// Workload names what keeps its address over restarts, for example
	// "namespace/pod"; empty: nothing does.
	Workload string
	// Runtime is as WithRuntime has it.
	Runtime string
}

// NewClaim returns a claim of id for the container whose network namespace is
// at path. A path that is none is ErrBadNetns.
func NewClaim(id model.ID, path string) (Claim, error) {
	ns, err := life.NetnsIDOf(path)
	return Claim{ID: id, Netns: path, NetnsID: ns}, err
}

// IPAM gives addresses to endpoints. Apply twice is once; Verify changes
// nothing and says what differs, which is ErrDifferent (or ErrNotFound or
// ErrMismatch of package ipamstore) and not for what it could not look at; Remove needs the ID only, and what is missing
// is success.
type IPAM interface {
	// Type names the kind of IPAM, as the key ipam.type does.
	Type() string
	Apply(ctx context.Context, claim Claim) (model.Addressing, error)
	Verify(ctx context.Context, id model.ID, addrs []netip.Addr) error
	Remove(ctx context.Context, id model.ID) error
	// Collect takes back the addresses of every owner keep says no to.
	Collect(ctx context.Context, keep func(life.Holder) bool) error
	// Status says why no address could be given now; nil if one could.
	Status(ctx context.Context) error
}
