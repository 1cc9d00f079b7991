package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// A network, an endpoint in it, and a container that has it as its interface.
func Example() {
	ctx := context.Background()
	controller, err := engine.New()
	if err != nil {
		log.Fatal(err)
	}
	defer controller.Close()

	// A network is a bridge on this host; its gateway has the first address.
	subnet := netip.MustParsePrefix("10.42.0.0/24")
	network, err := controller.NewNetwork(ctx, "bridge", "network1", engine.WithSubnet(subnet))
	if err != nil {
		log.Fatal(err)
	}

	// An endpoint has its addresses from the start.
	endpoint, err := network.CreateEndpoint(ctx, "Endpoint1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("address:", endpoint.Addressing().Addresses[0].Prefix)

	// A sandbox is a container's network namespace: here a new one; a runtime
	// brings its own with engine.WithNetnsPath.
	sandbox, err := controller.NewSandbox(ctx, "container1")
	if err != nil {
		log.Fatal(err)
	}

	// Join makes the interface.
	if err := endpoint.Join(ctx, sandbox); err != nil {
		log.Fatal(err)
	}
	fmt.Println("joined:", endpoint.Verify(ctx) == nil)

	// What exists can be listed, or walked until the function says false.
	err = controller.WalkNetworks(ctx, func(n *engine.Network) bool {
		endpoints, err := n.Endpoints(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range endpoints {
			fmt.Println(n.Name(), "has", e.Name())
		}
		return true
	})
	if err != nil {
		log.Fatal(err)
	}

	// A network in use stays; then everything goes, in reverse.
	fmt.Println("in use:", errors.Is(network.Delete(ctx), model.ErrNetworkInUse))
	for _, step := range []func(context.Context) error{endpoint.Leave, endpoint.Delete, sandbox.Delete, network.Delete} {
		if err := step(ctx); err != nil {
			log.Fatal(err)
		}
	}
	left, err := controller.Networks(ctx)
	fmt.Println("left:", len(left), err)

	// Output:
	// address: 10.42.0.2/24
	// joined: true
	// network1 has Endpoint1
	// in use: true
	// left: 0 <nil>
}
