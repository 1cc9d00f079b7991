// Package kernel is the only package that talks rtnetlink, network namespaces and sysctls:
// it applies, verifies, removes and lists bridges and veth attachments.
package kernel
