// Package bpf is bpf(2), as far as a program with maps of its own needs it: maps of hashes and
// arrays, programs of tc, and their pins in a bpffs. It needs Linux 5.10, 64 bits and little
// endian.
package bpf
