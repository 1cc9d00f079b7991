// Package etcd shares by etcd which hosts a network spans and which blocks they have. docs/etcd.md describes every key.
package etcd
