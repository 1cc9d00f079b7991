// Package wireguard reads and changes WireGuard devices: those of the kernel by generic
// netlink (Linux 5.6), and those of wireguard-go by its socket.
//
// It is not wgctrl: to link that costs every call of a plugin 3 % of an ADD (BenchmarkStart of
// test/bench), and it looks for wireguard-go at one path for all namespaces of a host.
package wireguard
