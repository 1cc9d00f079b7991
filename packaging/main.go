// Command packaging writes what a release says of the code of others in its binaries: NOTICE,
// with the licences of all modules, and a bill of materials (SBOM) in the format CycloneDX.
// Both are made of what the binaries themselves say that they were built of. Before, it looks at
// the binaries: each has to be for the processor of the release, and static.
package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	bin := flag.String("bin", "bin", "`directory` of the binaries")
	arch := flag.String("arch", "", "`processor` that the binaries have to be for, as GOARCH names it")
	source := flag.String("source", ".", "`directory` of the module that they were built of")
	version := flag.String("version", "", "of the release")
	notice := flag.String("notice", "", "`file` to write")
	sbom := flag.String("sbom", "", "`file` to write")
	flag.Parse()
	err := checkPrograms(*bin, *arch)
	if err == nil && *notice != "" {
		err = run(*bin, *source, *version, *notice, *sbom)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

// module is one that a binary was built of.
type module struct {
	path, version, sum string
	users              []string // binaries
	licence            licence
}

func (m module) purl() string { return "pkg:golang/" + m.path + "@" + m.version }

func run(bin, source, version, notice, sbom string) error {
	modules, err := modulesOf(bin)
	if err != nil {
		return err
	}
	dirs, err := dirsOf(source, modules)
	if err != nil {
		return err
	}
	for i, m := range modules {
		if modules[i].licence, err = licenceOf(dirs[m.path]); err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
	}
	if err := writeNotice(notice, modules); err != nil {
		return err
	}
	return writeSBOM(sbom, version, modules)
}

// modulesOf returns the modules of all binaries of a directory, in order.
func modulesOf(bin string) ([]module, error) {
	files, err := os.ReadDir(bin)
	if err != nil {
		return nil, err
	}
	known := map[string]*module{}
	add := func(path, version, sum, user string) {
		m := known[path]
		if m == nil {
			m = &module{path: path, version: version, sum: sum}
			known[path] = m
		}
		m.users = append(m.users, user)
	}
	for _, f := range files {
		info, err := buildinfo.ReadFile(filepath.Join(bin, f.Name()))
		if err != nil {
			return nil, err
		}
		add("std", strings.TrimPrefix(info.GoVersion, "go"), "", f.Name())
		for _, d := range info.Deps {
			m := cmp.Or(d.Replace, d)
			add(m.Path, m.Version, m.Sum, f.Name())
		}
	}
	var all []module
	for _, m := range known {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	if len(all) < 2 {
		return nil, fmt.Errorf("no modules in the binaries of %s", bin)
	}
	return all, nil
}

// dirsOf returns where the sources of modules are.
func dirsOf(source string, modules []module) (map[string]string, error) {
	dirs := map[string]string{"std": runtime.GOROOT()}
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		dirs["std"] = strings.TrimSpace(string(out))
	}
	args := []string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}
	for _, m := range modules {
		if m.path != "std" {
			args = append(args, m.path)
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = source
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		dirs[path] = dir
	}
	return dirs, nil
}

// licence is that of a module, with the texts that have to come along.
type licence struct {
	ids   []string // of SPDX; of several all hold
	texts []string
}

func (l licence) String() string { return strings.Join(l.ids, " AND ") }

func (l licence) choice() *cdx.Licenses {
	if len(l.ids) > 1 {
		return &cdx.Licenses{{Expression: l.String()}}
	}
	return &cdx.Licenses{{License: &cdx.License{ID: l.ids[0]}}}
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// licenceOf reads the files of a module that tell of its licence. One that it does not know
// is an error: a person has to read it.
func licenceOf(dir string) (l licence, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, f := range files {
		if f.IsDir() || !licenceFile.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return l, err
		}
		l.texts = append(l.texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
		for _, id := range identify(string(text)) {
			if !slices.Contains(l.ids, id) {
				l.ids = append(l.ids, id)
			}
		}
	}
	if len(l.ids) == 0 {
		return l, errors.New("no file with a licence that is known: " + dir)
	}
	return l, nil
}

// identify names the licences of a text by sentences that no other one has.
func identify(text string) (ids []string) {
	words := strings.Join(strings.Fields(text), " ")
	has := func(part string) bool { return strings.Contains(words, part) }
	bsd := has("Redistribution and use in source and binary forms")
	third := has("Neither the name") || has("names of its contributors may") || has("nor the names of")
	for _, l := range []struct {
		id string
		is bool
	}{
		{"Apache-2.0", has("Apache License") && has("Version 2.0")},
		{"MIT", has("Permission is hereby granted, free of charge, to any person obtaining a copy")},
		{"BSD-3-Clause", bsd && third},
		{"BSD-2-Clause", bsd && !third},
		{"ISC", has("Permission to use, copy, modify, and/or distribute this software for any purpose") || has("Permission to use, copy, modify, and distribute this software for any purpose")},
		{"MPL-2.0", has("Mozilla Public License") && has("2.0")},
	} {
		if l.is {
			ids = append(ids, l.id)
		}
	}
	return ids
}

func writeNotice(path string, modules []module) error {
	var b strings.Builder
	b.WriteString("The binaries of libnet, which is under the Apache License 2.0, contain code of these modules.\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "\n%s\n%s %s (%s), in %s\n\n", strings.Repeat("=", 80), m.path, m.version, m.licence, strings.Join(m.users, ", "))
		b.WriteString(strings.Join(m.licence.texts, "\n\n") + "\n")
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// writeSBOM has no time and no serial number, so that the same release has the same one.
func writeSBOM(path, version string, modules []module) (err error) {
	bom := cdx.NewBOM()
	self := "pkg:golang/github.com/libnet-cni/libnet@" + version
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{
		BOMRef: self, Type: cdx.ComponentTypeApplication, Name: "github.com/libnet-cni/libnet", Version: version, PackageURL: self,
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}}
	var components []cdx.Component
	var uses []string
	for _, m := range modules {
		c := cdx.Component{
			BOMRef: m.purl(), Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: m.purl(), Scope: cdx.ScopeRequired,
			Licenses:   m.licence.choice(),
			Properties: &[]cdx.Property{{Name: "libnet:binaries", Value: strings.Join(m.users, " ")}},
		}
		if m.sum != "" { // of go.sum, which is no hash of one file
			*c.Properties = append(*c.Properties, cdx.Property{Name: "go:sum", Value: m.sum})
		}
		components, uses = append(components, c), append(uses, m.purl())
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: self, Dependencies: &uses}}
	var out strings.Builder
	enc := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true)
	if err := enc.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return err
	}
	if !json.Valid([]byte(out.String())) {
		return errors.New("the bill of materials is no JSON")
	}
	return os.WriteFile(path, []byte(out.String()), 0o644)
}
