package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLines(t *testing.T) {
	for name, tt := range map[string]struct {
		source string
		want   []string
	}{
		"names that users have no use of": {"func f() {}; type t struct{ X int }; var v int; const c = 1", nil},
		"a constant with its value":       {`type M string; const A M = "a"`, []string{`const A M = "a"`, "type M string"}},
		"no names of parameters":          {"func F(a, b int, more ...string) (n int, err error) { return }", []string{"func F(int, int, ...string) (int, error)"}},
		"type parameters":                 {"func F[T comparable](t []T) {}", []string{"func F[T comparable](t []T)"}},
		"fields and methods": {"type S struct{ A, b int }; func (S) V() {}; func (*S) P() error { return nil }; func (S) h() {}",
			[]string{"method (*S) P() error", "method (S) V()", "type S struct", "type S struct, A int"}},
		"what is embedded": {"type e struct{}; func (*e) M() {}; type S struct{ *e }", []string{"method (S) M()", "type S struct"}},
		"an interface":     {"type I interface{ M(a int); hidden() }", []string{"type I interface", "type I interface, M(int)", "type I interface, unexported methods"}},
		"a variable":       {"var E error", []string{"var E error"}},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, w := range tt.want {
				want = append(want, "pkg p, "+w)
			}
			if diff := cmp.Diff(want, lines(typesOf(t, "package p; "+tt.source, nil))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Members of an internal type are API by the alias that shows it; those of another module's
// type are that module's.
func TestAliases(t *testing.T) {
	lower := types.NewPackage("m/internal/lower", "lower")
	public := types.NewPackage("m/public", "public")
	for _, p := range []*types.Package{lower, public} {
		fields := []*types.Var{types.NewField(token.NoPos, p, "Port", types.Typ[types.Int], false)}
		name := types.NewTypeName(token.NoPos, p, "T", nil)
		types.NewNamed(name, types.NewStruct(fields, nil), nil)
		p.Scope().Insert(name)
		p.MarkComplete()
	}
	got := lines(typesOf(t, `package p; import ("m/internal/lower"; "m/public"); type A = lower.T; type B = public.T`, map[string]*types.Package{"m/internal/lower": lower, "m/public": public}))
	want := []string{"pkg p, type A = lower.T", "pkg p, type A struct, Port int", "pkg p, type B = public.T"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

type imported map[string]*types.Package

func (i imported) Import(path string) (*types.Package, error) {
	if p := i[path]; p != nil {
		return p, nil
	}
	return importer.Default().Import(path)
}

func typesOf(t *testing.T, source string, others imported) *types.Package {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	conf := types.Config{Importer: others}
	pkg, err := conf.Check("p", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pkg
}

func TestCheck(t *testing.T) {
	t.Chdir("../..")
	dir := t.TempDir()
	var stderr strings.Builder
	if code := run([]string{"-check", "-dir", dir}, &stderr); code != 1 || !strings.Contains(stderr.String(), "run make api") {
		t.Errorf("without files: code %d: %s", code, stderr.String())
	}
	if code := run([]string{"-dir", dir}, &stderr); code != 0 {
		t.Fatalf("write: %s", stderr.String())
	}
	if code := run([]string{"-check", "-dir", dir}, &stderr); code != 0 {
		t.Errorf("of what it wrote itself: %s", stderr.String())
	}
	file := filepath.Join(dir, "libnet.txt")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(file, []byte("pkg libnet, func Gone()\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	stderr.Reset()
	want := "- pkg libnet, func Gone()\n+ " + first + "\n"
	if code := run([]string{"-check", "-dir", dir}, &stderr); code != 1 || !strings.Contains(stderr.String(), want) {
		t.Errorf("a changed API: code %d: %s, want %s", code, stderr.String(), want)
	}
}
