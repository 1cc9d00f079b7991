// Package libnet is Docker's container network model as a library: a Controller
// makes Networks, a Network has Endpoints, a Sandbox is a container's network
// namespace, and an Endpoint that joins a Sandbox is the container's interface in
// that Network.
//
//	controller, err := libnet.New()
//	network, err := controller.NewNetwork(ctx, "bridge", "network1", libnet.WithSubnet(subnet))
//	endpoint, err := network.CreateEndpoint(ctx, "endpoint1")
//	sandbox, err := controller.NewSandbox(ctx, "container1")
//	err = endpoint.Join(ctx, sandbox)
//
// The drivers "bridge", "overlay", "host" and "null" are built in. Every other name
// is that of a CNI plugin in the plugin path, as "macvlan".
//
// There is no daemon, and no state in memory: what a program makes, another one
// finds by its name, and the CNI plugins of this module make the same things. Every
// call is all or nothing. Network.Collect removes the parts that a killed process leaves.
//
// All types are safe for goroutines. Making networks needs root (CAP_NET_ADMIN and
// CAP_SYS_ADMIN) and Linux 5.6 or later; 5.7 to masquerade with nf_tables.
package libnet
