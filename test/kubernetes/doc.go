// Package kubernetes runs ln-agent, the plugins and the manifest against a real Kubernetes:
// make e2e-kubernetes. test/kubernetes/deps builds what it needs.
//
// The tests run in namespaces of their own (network, mounts, processes), which take all processes
// with them at the end. Hosts are further network namespaces on one bridge.
package kubernetes
