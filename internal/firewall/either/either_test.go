package either_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/either"
	"github.com/libnet-cni/libnet/internal/firewall/iptables"
	"github.com/libnet-cni/libnet/internal/firewall/nft"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/model"
)

// backends are both of a network namespace of its own.
func backends(t *testing.T) either.Backends {
	t.Helper()
	lntest.Isolate(t)
	f := nft.New()
	t.Cleanup(func() { _ = f.Close() })
	b := either.Backends{NFTables: f, IPTables: iptables.New(filepath.Join(t.TempDir(), "lock"))}
	if err := b.IPTables.Available(); err != nil {
		t.Skip(err)
	}
	return b
}

func endpoint(container, addr string) firewall.Endpoint {
	return firewall.Endpoint{
		Owner: "libnet:net1/" + container + "/eth0", Bridge: "br0", Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Masquerade: firewall.Families{IPv4: true},
	}
}

func owners(t *testing.T, by either.Rules) []string {
	t.Helper()
	all, err := by.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// Without a record, rules are removed from the backend that holds them, whichever it is;
// with one, from that backend alone. Those of others stay.
func TestRemove(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		recorded           string
		left, leftIPTables []string
	}{
		"no record":           {"", []string{"libnet:net1/c2/eth0"}, nil},
		"recorded: nftables":  {"nftables", []string{"libnet:net1/c2/eth0"}, []string{"libnet:net1/c1/eth0"}},
		"recorded: iptables":  {"iptables", []string{"libnet:net1/c1/eth0", "libnet:net1/c2/eth0"}, nil},
		"recorded: not known": {"ebtables", []string{"libnet:net1/c2/eth0"}, []string{"libnet:net1/c1/eth0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backends(t)
			first, second := endpoint("c1", "10.1.0.2"), endpoint("c2", "10.1.0.3")
			for _, by := range b.All() {
				if _, err := by.Apply(t.Context(), firewall.Network{}, first); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.NFTables.Apply(t.Context(), firewall.Network{}, second); err != nil {
				t.Fatal(err)
			}
			all, err := b.Owners(t.Context(), "")
			slices.Sort(all)
			if all = slices.Compact(all); err != nil || len(all) != 2 {
				t.Fatalf("owners: %v, %v", all, err)
			}
			if err := b.Remove(t.Context(), tt.recorded, model.BackendNFTables, first); err != nil {
				t.Fatal(err)
			}
			if got := owners(t, b.NFTables); !slices.Equal(got, tt.left) {
				t.Errorf("in nftables %v, want %v", got, tt.left)
			}
			if got := owners(t, b.IPTables); !slices.Equal(got, tt.leftIPTables) {
				t.Errorf("in iptables %v, want %v", got, tt.leftIPTables)
			}
		})
	}
}

// The host needs one of the two; a configuration that names one needs that one.
func TestAvailable(t *testing.T) {
	b := backends(t)
	for _, which := range []model.Backend{"", model.BackendNFTables, model.BackendIPTables} {
		if err := b.Available(which); err != nil {
			t.Errorf("%q: %v", which, err)
		}
	}
	t.Setenv("PATH", t.TempDir()) // without programs
	if err := b.Available(""); err != nil {
		t.Errorf("nftables needs no program: %v", err)
	}
	if err := b.Available(model.BackendIPTables); err == nil {
		t.Error("iptables is not installed, and it is said to hold rules")
	}
}
