// Package kubernetes is a registry in which the hosts of overlay networks are the Nodes of a
// cluster: a host's blocks are the podCIDRs of its Node, and what else hosts have to know of it is
// in one annotation of its Node, which only its own agent writes. Nothing else is asked of the API.
package kubernetes
