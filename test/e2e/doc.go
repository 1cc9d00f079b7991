// Package e2e runs the plugins under a real containerd, by `make e2e` as root.
//
// The test makes what looks like a machine of its own: network, mount, process
// and host name namespaces, with /run, /etc, /opt and /var that are read from
// the machine and written to memory. In there it starts containerd as the
// distribution packs it, with the plugins in /opt/cni/bin and an example from
// conf/examples in /etc/cni/net.d. The one image it runs, it builds itself (see
// pod); a recorder in front of every plugin notes each call and its time.
//
// When the test's process ends, so does everything it started: nothing stays on
// the machine but the packages that deps installed. Cgroups of version 1 and 2
// both do.
//
// It is a module of its own, so that its CRI client is no dependency of the
// plugins.
package e2e
