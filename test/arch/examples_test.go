package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamplesAreListed: the page of conf/examples has each file, and there is no file
// that TestExamples of test/integration would pass over.
func TestExamplesAreListed(t *testing.T) {
	const dir = "../../conf/examples"
	page, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		switch name := f.Name(); {
		case name == "README.md":
		case name == "ln": // what lies below an example
		case filepath.Ext(name) != ".conflist":
			t.Errorf("%s: want a file that ends in .conflist", name)
		case strings.Count(string(page), "\n| ["+strings.TrimSuffix(name, ".conflist")+"]("+name+") | ") != 1:
			t.Errorf("README.md: want one row for %s", name)
		}
	}
}
