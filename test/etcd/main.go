// Command etcd is the server of that name, built from its own modules: what the
// tests and the demo of ln-agent run against.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
