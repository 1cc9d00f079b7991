// Package kubernetes runs ln-agent, the plugins and the manifest against a real Kubernetes API: make
// e2e-kubernetes. The script deps builds what it needs. The script cluster runs two whole nodes, and
// the conformance specs on them.
//
// The tests run in namespaces of their own (network, mounts, processes), which take all processes
// with them at the end. Hosts are further network namespaces on one bridge.
package kubernetes
