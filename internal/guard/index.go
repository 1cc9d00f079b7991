package guard

import (
	"context"

	"github.com/libnet-cni/libnet/internal/state"
)

// The guard of a bridge closes it: it joins the strictest demands of all networks that
// have an endpoint on it, each in the configuration that the endpoint came with. It is in
// place before the bridge has an address, and stays as long as the bridge: a packet or a
// connection from a time without rules would be let in later.
//
// The index of a bridge (state.Bridge) has a record for each of these
// configurations. It is read under the bridge's lock, shared by the calls that add
// attachments to it, exclusive for those that change it. A record without an endpoint
// makes the guard stricter than it has to be, never weaker.
type (
	// Index is the index of all bridges.
	Index interface {
		LockBridge(ctx context.Context, bridge string, how int, create state.Creation) (Bridge, error)
		Bridges() ([]string, error)
	}
	// Bridge is the index of one bridge while its lock is held.
	Bridge interface {
		Len() int
		Has(state.Guard) bool
		Guards() ([]state.Guard, error)
		Put(state.Guard) error
		Delete(state.Guard) error
		Remove() error
		Unlock()
	}
)

// IndexOf returns the index of a state directory.
func IndexOf(dir *state.Dir) Index { return stateIndex{dir} }

// stateIndex are those of a state directory. It does not embed it: each of its 36 methods that an
// interface of the engine names would be linked twice more, 30 KB.
type stateIndex struct{ dir *state.Dir }

var (
	_ Index  = stateIndex{}
	_ Bridge = (*state.Bridge)(nil)
)

// LockBridge is that of state.Dir.
func (s stateIndex) LockBridge(ctx context.Context, bridge string, how int, create state.Creation) (Bridge, error) {
	b, err := s.dir.LockBridge(ctx, bridge, how, create)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Bridges is that of state.Dir.
func (s stateIndex) Bridges() ([]string, error) { return s.dir.Bridges() }
