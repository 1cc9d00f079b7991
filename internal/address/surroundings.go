package address

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/libnet-cni/libnet/internal/kernel"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/state"
	"github.com/libnet-cni/libnet/pkg/ipamstore/subnets"
)

// Networks are the records of the host's networks.
type Networks interface {
	Networks() ([]state.Network, error)
}

// surroundings is what a chosen subnet must keep clear of, beside what the book
// knows.
type surroundings struct {
	network string // whose subnet it is
	records Networks
	routes  func() ([]netip.Prefix, error)
}

// ownRoutes lists the routes of the calling thread's network namespace.
func ownRoutes() ([]netip.Prefix, error) {
	h, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Prefixes()
}

// inUse returns what is in use on the host, and apart from that what the
// network's own record says it has.
func (s surroundings) inUse() (all, own []netip.Prefix, err error) {
	all, err = s.routes()
	if err != nil {
		return nil, nil, err
	}
	// systemd-resolved names itself in the first and the servers it asks in the second.
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		servers, err := nameservers(file)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, servers...)
	}
	recs, err := s.records.Networks()
	if err != nil && !errors.Is(err, state.ErrCorrupt) { // set aside; the routes tell
		return nil, nil, err
	}
	for _, rec := range recs {
		subnets, err := subnetsOf(rec)
		if err != nil {
			return nil, nil, err
		}
		if rec.Name == s.network {
			own = append(own, subnets...)
		} else {
			all = append(all, subnets...)
		}
	}
	return all, own, nil
}

// InUse returns what a new subnet must not overlap: routes, addresses and name servers of
// the calling thread's network namespace, the subnets in records, and those that were chosen
// by the book in dataDir.
func InUse(records Networks, dataDir string) ([]netip.Prefix, error) {
	all, _, err := surroundings{records: records, routes: ownRoutes}.inUse()
	if err != nil {
		return nil, err
	}
	book, err := (&subnets.Book{DataDir: dataDir}).List()
	for _, h := range book {
		all = append(all, h.Subnet)
	}
	return all, err
}

// subnetsOf returns the subnets of a network whose addresses are ours.
func subnetsOf(rec state.Network) ([]netip.Prefix, error) {
	var saved struct{ Pool SavedPool }
	if err := json.Unmarshal(rec.Config, &saved); err != nil {
		return nil, fmt.Errorf("record of network %q: %w", rec.Name, err)
	}
	var all []netip.Prefix
	for _, set := range saved.Pool.Sets {
		for _, r := range set {
			all = append(all, r.Subnet)
		}
	}
	return all, nil
}

// nameservers returns those of a resolv.conf(5), each as a prefix of its own; a
// missing file has none.
func nameservers(file string) ([]netip.Prefix, error) {
	data, err := plain.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []netip.Prefix
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			a = a.WithZone("").Unmap()
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all, err
}
