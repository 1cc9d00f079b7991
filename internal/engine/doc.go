// Package libnet is Docker's container network model as a library: a
// Controller makes Networks, a Network has Endpoints, a Sandbox is a
// container's network namespace, and an Endpoint that joins a Sandbox is the
// container's interface in that Network.
//
//	controller, err := engine.New()
//	network, err := controller.NewNetwork(ctx, "bridge", "network1", engine.WithSubnet(subnet))
//	endpoint, err := network.CreateEndpoint(ctx, "Endpoint1") // has its addresses now
//	sandbox, err := controller.NewSandbox(ctx, "container1")
//	err = endpoint.Join(ctx, sandbox) // has its interface now
//
// The CNI plugins of this module are this engine behind the CNI protocol, so
// what a program makes and what a runtime makes are the same things, kept in
// the same records.
//
// Nothing is cached between calls and there is no daemon: the truth is in the
// kernel, in the lease directory and in one small record per attachment. Every
// operation is all or nothing; what a killed process leaves is found by its
// owner's name and removed by the next Attach, Remove or Collect.
//
// Making networks needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and Linux 5.6
// or later; 5.7 to masquerade by nf_tables.
package engine
