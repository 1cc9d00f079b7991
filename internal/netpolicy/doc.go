// Package netpolicy compiles the NetworkPolicies of a Kubernetes cluster (networking.k8s.io/v1) for
// one node: from namespaces, pods and policies to classes of addresses, and to the ports that a
// class may reach. It is pure. Package admit brings the result into the kernel.
//
// A pod that a policy selects has a target class for each direction, which is the set of the
// policies that select it. A peer has a class, too: the set of selectors and blocks of these
// policies that match it. So what is allowed is one entry for each pair of classes, not one for each
// pair of pods, and a pod that comes or goes changes the class of its own addresses only.
package netpolicy
