package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/state"
)

// folder of the records, below those of internal/engine.
const folder = "drivers"

// Networks are the networks of all drivers but internal/engine's, and their
// endpoints. It keeps no state of its own and is safe for goroutines.
type Networks struct {
	dir  *state.Dir
	dead func(Life) bool
}

// Life is what is known of the life of a container.
type Life struct {
	Boot, Netns string
	NetnsID     state.NetnsID
	MountNS     string
}

// New returns the networks recorded below stateDir. dead says whether a container
// is provably gone.
func New(stateDir string, dead func(Life) bool) *Networks {
	if stateDir == "" {
		stateDir = state.DefaultPath
	}
	return &Networks{dir: state.New(filepath.Join(stateDir, folder)), dead: dead}
}

// Create records a network; model.ErrNetworkExists if there is one of that name or,
// of a driver with a single network, any.
func (s *Networks) Create(ctx context.Context, n Network, c Capability) error {
	release, err := s.dir.OneAtATime(ctx)
	if err != nil {
		return err
	}
	defer release()
	if c.Single {
		all, err := s.List()
		for _, other := range all {
			if other.Driver == n.Driver {
				return fmt.Errorf("%w: %q is the one of the driver %s", model.ErrNetworkExists, other.Name, n.Driver)
			}
		}
		if err != nil {
			return err
		}
	}
	data, err := json.Marshal(n)
	if err != nil {
		return model.BadConfig("options", n.Options, "want values that JSON has: "+err.Error())
	}
	err = s.dir.CreateNetwork(state.Network{Name: n.Name, Driver: n.Driver, Config: data})
	if errors.Is(err, state.ErrExists) {
		return fmt.Errorf("%w: %q", model.ErrNetworkExists, n.Name)
	}
	return err
}

// Load returns the network of that name; model.ErrNotFound if there is none.
func (s *Networks) Load(name string) (Network, error) {
	rec, err := s.dir.LoadNetwork(name)
	if errors.Is(err, state.ErrNotFound) {
		return Network{}, fmt.Errorf("network %q: %w", name, model.ErrNotFound)
	}
	if err != nil {
		return Network{}, err
	}
	return networkOf(rec)
}

func networkOf(rec state.Network) (Network, error) {
	var n Network
	if err := json.Unmarshal(rec.Config, &n); err != nil {
		return Network{}, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	return n, nil
}

// List returns every network in the order of their names. Unreadable records are left out
// and reported in the error, beside the rest.
func (s *Networks) List() ([]Network, error) {
	recs, err := s.dir.Networks()
	errs := []error{err}
	var all []Network
	for _, rec := range recs {
		n, err := networkOf(rec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, n)
	}
	return all, errors.Join(errs...)
}

// Delete removes a network; missing is success. One that has endpoints is
// model.ErrNetworkInUse.
func (s *Networks) Delete(ctx context.Context, name string) error {
	err := s.dir.Alone(ctx, name, func() error { return s.dir.DeleteNetwork(name) })
	if errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%w: %q", model.ErrNetworkInUse, name)
	}
	return err
}
