// Package manual writes the manual pages of a program from its commands. Only what is built with
// the tag manual links it.
package manual

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Main writes a page for each command into the directory that the program is given, and ends it
// if that fails. Pages are dated SOURCE_DATE_EPOCH, in seconds.
func Main(root *cobra.Command, version string) {
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
