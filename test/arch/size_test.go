package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A package is to be read as a whole.
const (
	filesOfPackage = 20 // that are no tests
	filesOfLibrary = 15 // of pkg/libnet
	namesOfLibrary = 60 // that pkg/libnet exports, without fields and methods
)

// larger are the packages that have more files than they may, with the number of today.
// A number may only go down, and a package leaves the list with the last file too many.
var larger = map[string]int{
	"internal/engine": 56,
}

func TestPackageSize(t *testing.T) {
	sizes := map[string]int{}
	for _, line := range goList(t, "{{.ImportPath}} {{len .GoFiles}}", "./...") {
		pkg, files, _ := strings.Cut(strings.TrimPrefix(line, module), " ")
		n, err := strconv.Atoi(files)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sizes[pkg] = n
	}
	if len(sizes) < 10 || sizes["pkg/libnet"] == 0 {
		t.Fatalf("packages: %v", sizes)
	}
	for pkg, size := range sizes {
		most := filesOfPackage
		if pkg == "pkg/libnet" {
			most = filesOfLibrary
		}
		if fault := limited(size, most, larger[pkg]); fault != "" {
			t.Errorf("files of %s: %s", pkg, fault)
		}
	}
	for pkg := range larger {
		if _, is := sizes[pkg]; !is {
			t.Errorf("larger: there is no package %s", pkg)
		}
	}
}

func TestLibraryNames(t *testing.T) {
	names := exported(t, "../../pkg/libnet")
	if fault := limited(len(names), namesOfLibrary, 0); fault != "" {
		t.Errorf("exported names of pkg/libnet: %s", fault)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "WithNo") && name != "WithNodes" {
			t.Errorf("%s: want an option that takes a bool", name)
		}
	}
}

// The checks must be able to fail.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		size, most, exception int
		says                  string
	}{
		{20, 20, 0, ""}, {21, 20, 0, "want 20"}, {30, 20, 30, ""}, {31, 20, 30, "want 30"},
		{29, 20, 30, "lower"}, {20, 20, 30, "remove"}, {5, 20, 20, "remove"},
	} {
		if got := limited(tt.size, tt.most, tt.exception); (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", "package p; type A struct{ X int }; type b int; func C() {}; func (A) D() {}; func e() {}; const F, g = 1, 2; var H, _ int", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(exportedBy(file), " "); got != "A C F H" {
		t.Errorf("exported: %s", got)
	}
}

// limited returns why a size is not right: above the limit, or below a present exception
// to it, which then has to follow. exception 0 is none.
func limited(size, most, exception int) string {
	switch {
	case exception == 0 && size > most:
		return fmt.Sprintf("%d, want %d at most", size, most)
	case exception == 0:
		return ""
	case size <= most:
		return fmt.Sprint(size) + ": remove its exception from test/arch/size_test.go"
	case size > exception:
		return fmt.Sprintf("%d, want %d at most, and %d in the end", size, exception, most)
	case size < exception:
		return fmt.Sprint(size) + ": lower its exception in test/arch/size_test.go to that"
	}
	return ""
}

func exported(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, exportedBy(file)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func exportedBy(file *ast.File) (names []string) {
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(s.Name)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						add(id)
					}
				}
			}
		}
	}
	return names
}
