//go:build manual

package main

import "github.com/libnet-cni/libnet/internal/manual"

// With the tag manual the program writes its manual pages, as package manual says.
func main() {
	root, _ := rootCommand()
	addCompletion(root)
	manual.Main(root, version)
}
