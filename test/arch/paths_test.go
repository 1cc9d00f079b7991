package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guides tell contributors where things are.
var guides = []string{"CONTRIBUTING.md", "docs/architecture.md", "RELEASING.md", ".github/pull_request_template.md"}

// planned are paths in guides that are not there yet. One that is there leaves the list.
var planned = []string{}

// treePath is a path in a code span that begins at one of the module's folders; <name>
// stands for a name of the reader's choice.
var treePath = regexp.MustCompile("`((?:api|cmd|conf|docs|internal|pkg|plugins|scripts|test)/[^` ]*|VERSION|Makefile|CHANGELOG.md)`")

// TestGuidesNamePaths holds that each path that a guide names is in the tree.
func TestGuidesNamePaths(t *testing.T) {
	found := 0
	for _, guide := range guides {
		for _, m := range treePath.FindAllStringSubmatch(read(t, "../../"+guide), -1) {
			found++
			path, _, _ := strings.Cut(m[1], "<")
			path = strings.TrimSuffix(path, "/")
			if !exists(path) && !isPlanned(path) {
				t.Errorf("%s: there is no %s", guide, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("%d paths found", found)
	}
	for _, path := range planned {
		if exists(path) {
			t.Errorf("%s is there now: remove it from planned", path)
		}
	}
}

func exists(pattern string) bool {
	matches, err := filepath.Glob(filepath.Join("../..", pattern))
	return err == nil && len(matches) > 0
}

func isPlanned(path string) bool {
	for _, p := range planned {
		if path == p || strings.HasPrefix(path, p+string(os.PathSeparator)) {
			return true
		}
	}
	return false
}
