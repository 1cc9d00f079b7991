package libnet_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"

	"github.com/libnet-cni/libnet/pkg/libnet"
)

// must ends the program on an error; a real one would handle it.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func check(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		log.Fatal(err)
	}
}

// A network, an endpoint in it, and a container that has it as its interface.
func Example() {
	ctx := context.Background()
	controller := must(libnet.New())
	defer func() { _ = controller.Close() }()

	// A network is a bridge on this host; its gateway has the first address.
	subnet := netip.MustParsePrefix("10.42.0.0/24")
	network := must(controller.NewNetwork(ctx, "bridge", "network1", libnet.WithSubnet(subnet)))

	// An endpoint has its addresses from the start, and its interface once it joins a
	// sandbox: a container's network namespace.
	endpoint := must(network.CreateEndpoint(ctx, "endpoint1"))
	fmt.Println("address:", endpoint.Addresses()[0].Prefix)
	sandbox := must(controller.NewSandbox(ctx, "container1"))
	check(endpoint.Join(ctx, sandbox))
	fmt.Println("joined:", endpoint.IfName(), endpoint.Verify(ctx) == nil)

	// A network in use stays; then everything goes, in reverse.
	fmt.Println("in use:", errors.Is(network.Delete(ctx), libnet.ErrInUse))
	check(endpoint.Leave(ctx), endpoint.Delete(ctx), sandbox.Delete(ctx), network.Delete(ctx))
	fmt.Println("left:", len(must(controller.Networks(ctx))))

	// Output:
	// address: 10.42.0.2/24
	// joined: eth0 true
	// in use: true
	// left: 0
}

// Each endpoint has an IPv4 and an IPv6 address.
func ExampleWithSubnet_dualStack() {
	ctx := context.Background()
	controller := must(libnet.New())
	defer func() { _ = controller.Close() }()
	network := must(controller.NewNetwork(ctx, "bridge", "dual",
		libnet.WithSubnet(netip.MustParsePrefix("10.43.0.0/24")),
		libnet.WithSubnet(netip.MustParsePrefix("fd43::/64")),
		libnet.WithGatewayMode(libnet.GatewayNAT)))
	sandbox := must(controller.NewSandbox(ctx, "dual1"))
	endpoint := must(network.Attach(ctx, sandbox)) // CreateEndpoint and Join in one
	for _, a := range endpoint.Addresses() {
		fmt.Println(a.Prefix, "via", a.Gateway)
	}
	check(sandbox.Delete(ctx), endpoint.Delete(ctx), network.Delete(ctx))

	// Output:
	// 10.43.0.2/24 via 10.43.0.1
	// fd43::2/64 via fd43::1
}

// A port of the host leads to the container, and to one container only.
func ExampleWithPorts() {
	ctx := context.Background()
	controller := must(libnet.New())
	defer func() { _ = controller.Close() }()
	network := must(controller.NewNetwork(ctx, "bridge", "web",
		libnet.WithSubnet(netip.MustParsePrefix("10.44.0.0/24")), libnet.WithGatewayMode(libnet.GatewayNAT)))
	sandbox := must(controller.NewSandbox(ctx, "web1"))
	web := must(network.Attach(ctx, sandbox, libnet.WithPorts(libnet.PortMapping{HostPort: 8044, ContainerPort: 80})))
	fmt.Println(web.Ports()[0])

	other := must(controller.NewSandbox(ctx, "web2"))
	_, err := network.Attach(ctx, other, libnet.WithPorts(libnet.PortMapping{HostPort: 8044, ContainerPort: 80}))
	var held *libnet.PortHeldError
	fmt.Println(errors.As(err, &held), held.Owner)
	check(sandbox.Delete(ctx), web.Delete(ctx), other.Delete(ctx), network.Delete(ctx))

	// Output:
	// tcp *:8044 to 80
	// true libnet:web/web1/eth0
}

// A program lists networks, finds them by name or ID, and walks them.
func ExampleController_WalkNetworks() {
	ctx := context.Background()
	controller := must(libnet.New())
	defer func() { _ = controller.Close() }()
	for i, name := range []string{"blue", "green"} {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 45, byte(i), 0}), 24)
		network := must(controller.NewNetwork(ctx, "bridge", name, libnet.WithSubnet(subnet),
			libnet.WithLabels(map[string]string{"colour": name})))
		must(network.CreateEndpoint(ctx, "endpoint1"))
	}

	check(controller.WalkNetworks(ctx, func(n *libnet.Network) bool {
		for _, e := range must(n.Endpoints(ctx)) {
			fmt.Println(n.Name(), n.Labels(), n.Subnets(), "has", e.Name())
		}
		return true // false ends the walk
	}))
	blue := must(controller.Network(ctx, "blue"))
	same := must(controller.NetworkByID(ctx, blue.ID()))
	fmt.Println(same.Name(), same.Driver(), same.Scope())

	for _, n := range must(controller.Networks(ctx)) {
		check(must(n.Endpoint(ctx, "endpoint1")).Delete(ctx), n.Delete(ctx))
	}

	// Output:
	// blue map[colour:blue] [10.45.0.0/24] has endpoint1
	// green map[colour:green] [10.45.1.0/24] has endpoint1
	// blue bridge local
}

// A container in two networks: interfaces are named in order, and the network with
// the higher priority has the default route.
func ExampleWithGatewayPriority() {
	ctx := context.Background()
	controller := must(libnet.New())
	defer func() { _ = controller.Close() }()
	front := must(controller.NewNetwork(ctx, "bridge", "front", libnet.WithSubnet(netip.MustParsePrefix("10.46.0.0/24"))))
	back := must(controller.NewNetwork(ctx, "bridge", "back", libnet.WithSubnet(netip.MustParsePrefix("10.46.1.0/24"))))
	sandbox := must(controller.NewSandbox(ctx, "app1"))
	for _, e := range []*libnet.Endpoint{
		must(back.CreateEndpoint(ctx, "app-back")),
		must(front.CreateEndpoint(ctx, "app-front", libnet.WithGatewayPriority(10))),
	} {
		check(e.Join(ctx, sandbox))
	}
	for _, e := range must(sandbox.Endpoints(ctx)) {
		fmt.Println(e.Network().Name(), e.IfName())
	}
	fmt.Println("default route by", defaultDevice(sandbox.Path()))
	check(controller.DestroySandbox(ctx, "app1"))
	check(controller.DestroySandbox(ctx, "app1")) // missing is success
	for _, n := range []*libnet.Network{front, back} {
		for _, e := range must(n.Endpoints(ctx)) {
			check(e.Delete(ctx))
		}
		check(n.Delete(ctx))
	}

	// Output:
	// back eth0
	// front eth1
	// default route by eth1
}

// Every name that is not built in is that of a CNI plugin: here macvlan, which hangs
// containers on an interface of the host.
func ExampleController_NewNetwork_plugin() {
	ctx := context.Background()
	controller := must(libnet.New(libnet.WithPluginPath(os.Getenv("BIN"), os.Getenv("TOOLS"))))
	defer func() { _ = controller.Close() }()
	removeUplink := addUplink("example0")
	defer removeUplink()
	network := must(controller.NewNetwork(ctx, "macvlan", "lan",
		libnet.WithDriverOptions(map[string]any{"master": "example0", "mode": "bridge"}),
		libnet.WithSubnet(netip.MustParsePrefix("10.47.0.0/24"))))
	sandbox := must(controller.NewSandbox(ctx, "lan1"))
	endpoint := must(network.Attach(ctx, sandbox))
	fmt.Println(endpoint.IfName(), endpoint.Addresses()[0].Prefix, endpoint.Verify(ctx) == nil)
	check(endpoint.Leave(ctx), endpoint.Delete(ctx), sandbox.Delete(ctx), network.Delete(ctx))

	// Output:
	// eth0 10.47.0.2/24 true
}
