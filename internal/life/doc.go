// Package life says whether the container that owns something is provably gone: it was
// made before the last boot, or its network namespace is not there any more. An unknown
// boot or namespace proves nothing.
package life
