// Package enforce brings NetworkPolicies into the kernel of a node: it follows namespaces, pods and
// policies of the cluster, and the records of this host's attachments, compiles them and writes what
// differs. Of a pod the record tells at ADD, before the API knows its address.
package enforce
