// Command api writes the exported API of the library's packages to api/*.txt, one line for
// each name, field and method, as the Go project does in its own api folder. With -check it
// writes nothing and lists the differences. It needs no network and no history.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// packages have users outside this module. Everything else is internal.
var packages = []string{"./pkg/libnet", "./pkg/ipamstore", "./pkg/ipamstore/subnets"}

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("api", flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := flags.Bool("check", false, "list differences and write nothing")
	dir := flags.String("dir", "api", "the folder of the files")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	err := generate(*dir, *check)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func generate(dir string, check bool) error {
	loaded, err := load(packages...)
	if err != nil {
		return err
	}
	var errs []error
	for _, pkg := range loaded {
		file, now := filepath.Join(dir, pkg.Name()+".txt"), lines(pkg)
		if !check {
			errs = append(errs, os.WriteFile(file, []byte(strings.Join(now, "\n")+"\n"), 0o644))
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: run make api", err))
			continue
		}
		if diff := compare(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), now); diff != "" {
			errs = append(errs, fmt.Errorf("the API of %s differs from %s:\n%sa line with - breaks users; if the change is meant, run make api and write it into CHANGELOG.md", pkg.Path(), file, diff))
		}
	}
	return errors.Join(errs...)
}

// compare lists what was and is no more by "-", and what is new by "+".
func compare(was, is []string) string {
	var diff strings.Builder
	for _, l := range was {
		if !slices.Contains(is, l) {
			diff.WriteString("- " + l + "\n")
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			diff.WriteString("+ " + l + "\n")
		}
	}
	return diff.String()
}

// load returns the types of packages, from what the compiler exports of them.
func load(patterns ...string) ([]*types.Package, error) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Export,DepOnly"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	exports, wanted := map[string]string{}, []string(nil)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Export string
			DepOnly            bool
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			wanted = append(wanted, p.ImportPath)
		}
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	var loaded []*types.Package
	for _, path := range wanted {
		pkg, err := imp.Import(path)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, pkg)
	}
	return loaded, nil
}

// lines describes what a package exports, sorted.
func lines(pkg *types.Package) []string {
	d := &description{pkg: pkg}
	for _, name := range pkg.Scope().Names() {
		if token.IsExported(name) {
			d.object(pkg.Scope().Lookup(name))
		}
	}
	slices.Sort(d.lines)
	return slices.Compact(d.lines)
}

type description struct {
	pkg   *types.Package
	lines []string
}

func (d *description) add(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf("pkg %s, ", d.pkg.Name())+fmt.Sprintf(format, args...))
}

// text is a type. Names of parameters are no part of an API; those of generic functions
// stay, as a type parameter cannot be bound to a second signature.
func (d *description) text(t types.Type) string {
	if s, is := t.(*types.Signature); is && s.TypeParams() == nil {
		t = bare(s)
	}
	return types.TypeString(t, func(p *types.Package) string {
		if p == d.pkg {
			return ""
		}
		return p.Name()
	})
}

func bare(s *types.Signature) *types.Signature {
	nameless := func(t *types.Tuple) *types.Tuple {
		var vars []*types.Var
		for v := range t.Variables() {
			vars = append(vars, types.NewParam(token.NoPos, nil, "", v.Type()))
		}
		return types.NewTuple(vars...)
	}
	return types.NewSignatureType(nil, nil, nil, nameless(s.Params()), nameless(s.Results()), s.Variadic())
}

func (d *description) object(o types.Object) {
	switch o := o.(type) {
	case *types.Const:
		d.add("const %s %s = %s", o.Name(), d.text(o.Type()), o.Val().ExactString())
	case *types.Var:
		d.add("var %s %s", o.Name(), d.text(o.Type()))
	case *types.Func:
		d.add("func %s%s", o.Name(), strings.TrimPrefix(d.text(o.Type()), "func"))
	case *types.TypeName:
		d.typeName(o)
	}
}

func (d *description) typeName(o *types.TypeName) {
	t := o.Type()
	if o.IsAlias() {
		of := types.Unalias(t)
		d.add("type %s = %s", o.Name(), d.text(of))
		// Users see the members of an internal type by this name alone.
		if named, is := of.(*types.Named); !is || named.Obj().Pkg() == nil || !slices.Contains(strings.Split(path.Dir(named.Obj().Pkg().Path()), "/"), "internal") {
			return
		}
		t = of
	}
	switch u := t.Underlying().(type) {
	case *types.Struct:
		if !o.IsAlias() {
			d.add("type %s struct", o.Name())
		}
		for f := range u.Fields() {
			if f.Exported() {
				d.add("type %s struct, %s %s", o.Name(), f.Name(), d.text(f.Type()))
			}
		}
	case *types.Interface:
		d.iface(o, u)
		return // its methods are there
	default:
		if !o.IsAlias() {
			d.add("type %s %s", o.Name(), d.text(u))
		}
	}
	d.methods(o.Name(), t)
}

// iface lists the methods on the lines of an interface. One with a method that is not
// exported may grow: nothing outside the package implements it.
func (d *description) iface(o *types.TypeName, i *types.Interface) {
	d.add("type %s interface", o.Name())
	for m := range i.Methods() {
		if m.Exported() {
			d.add("type %s interface, %s%s", o.Name(), m.Name(), strings.TrimPrefix(d.text(m.Type()), "func"))
		} else {
			d.add("type %s interface, unexported methods", o.Name())
		}
	}
}

func (d *description) methods(name string, t types.Type) {
	byValue := types.NewMethodSet(t)
	for m := range types.NewMethodSet(types.NewPointer(t)).Methods() {
		if !m.Obj().Exported() {
			continue
		}
		receiver := "*" + name
		if byValue.Lookup(m.Obj().Pkg(), m.Obj().Name()) != nil {
			receiver = name
		}
		d.add("method (%s) %s%s", receiver, m.Obj().Name(), strings.TrimPrefix(d.text(m.Obj().Type()), "func"))
	}
}
