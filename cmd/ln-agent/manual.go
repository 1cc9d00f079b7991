//go:build manual

package main

import (
	"os"

	"github.com/libnet-cni/libnet/internal/manual"
)

// With the tag manual the program writes its manual pages, as package manual says.
func main() { manual.Main(rootCommand(os.Getenv), version) }
