package ipamstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// A dual-stack pool: every container gets one address of each family.
func Example() {
	dir, err := os.MkdirTemp("", "ipamstore")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	store, err := ipamstore.Open(ipamstore.Config{
		Network: "web",
		DataDir: dir, // leave it out for /var/lib/cni/networks
		Sets: []ipamstore.RangeSet{
			{{Subnet: netip.MustParsePrefix("10.1.0.0/30")}},
			{{Subnet: netip.MustParsePrefix("fd00:1::/64")}},
		},
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	owner := ipamstore.Owner{ContainerID: "4f1e", IfName: "eth0"}
	leases, err := store.Apply(ctx, ipamstore.Request{Holder: ipamstore.Holder{Owner: owner}})
	if err != nil {
		panic(err)
	}
	for _, l := range leases {
		fmt.Println(l.Addr, "via", l.Gateway)
	}

	other := ipamstore.Owner{ContainerID: "77aa", IfName: "eth0"}
	_, err = store.Apply(ctx, ipamstore.Request{Holder: ipamstore.Holder{Owner: other}})
	fmt.Println("exhausted:", errors.Is(err, ipamstore.ErrExhausted))

	fmt.Println("removed:", store.Remove(ctx, owner))
	// Output:
	// 10.1.0.2/30 via 10.1.0.1
	// fd00:1::2/64 via fd00:1::1
	// exhausted: true
	// removed: <nil>
}
