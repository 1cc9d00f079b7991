//go:build manual

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra/doc"
)

// With the tag manual the program writes its manual pages, one for each command, into the
// directory that it is given. They are dated SOURCE_DATE_EPOCH, in seconds.
func main() {
	root, _ := rootCommand()
	addCompletion(root)
	root.DisableAutoGenTag = true
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err == nil {
		date := time.Unix(seconds, 0).UTC()
		err = doc.GenManTree(root, &doc.GenManHeader{Section: "8", Date: &date, Source: "libnet " + version, Manual: "libnet"}, os.Args[1])
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
