package main

import (
	"fmt"
	"os/exec"
	"strings"
)

const libraryText = `A sandbox, an endpoint with one published port, join, and then leave, both deleted, by our library and by libnetwork itself, which take turns in processes of their own.
`

// beside compares our library with the one that it takes the place of, by a program of its own
// module.
func beside(r *report, n int) error {
	cmd := exec.Command(tool("libnetwork"), "-n", fmt.Sprint(max(5, n*2/3)))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Path, err, stderr.String())
	}
	r.print("\n## Beside libnetwork\n\n%s\n%s", libraryText, out)
	return nil
}
