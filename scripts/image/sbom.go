package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The parts of an SPDX 2.3 document that are needed: https://spdx.github.io/spdx-spec/v2.3
type (
	document struct {
		Version       string         `json:"spdxVersion"`
		License       string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      creation       `json:"creationInfo"`
		Packages      []spdxPackage  `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID       string        `json:"SPDXID"`
		Name     string        `json:"name"`
		Version  string        `json:"versionInfo,omitempty"`
		Location string        `json:"downloadLocation"`
		Analyzed bool          `json:"filesAnalyzed"`
		Sums     []checksum    `json:"checksums,omitempty"`
		Refs     []externalRef `json:"externalRefs,omitempty"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	externalRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const none = "NOASSERTION"

// bill lists the programs of an architecture, with their sums, and the modules that each is built of,
// by what Go's linker has written into it.
func bill(dir, arch, version string) ([]byte, error) {
	d := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name + ":" + version + " " + arch,
		Namespace: "https://github.com/libnet-cni/libnet/sbom/" + version + "/" + arch,
		Creation:  creation{"1970-01-01T00:00:00Z", []string{"Tool: libnet-scripts-image"}}, // the same each time
	}
	modules := map[string]spdxPackage{}
	for _, program := range programs {
		data, err := os.ReadFile(filepath.Join(dir, program))
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.ReadFile(filepath.Join(dir, program))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", program, err)
		}
		own := spdxPackage{ID: "SPDXRef-" + program, Name: program, Version: version, Location: none,
			Sums: []checksum{{"SHA256", fmt.Sprintf("%x", sha256.Sum256(data))}}}
		d.Packages = append(d.Packages, own)
		d.Relationships = append(d.Relationships, relationship{d.ID, "DESCRIBES", own.ID})
		parts := []spdxPackage{module("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			parts = append(parts, module(m.Path, m.Version))
		}
		for _, m := range parts {
			modules[m.ID] = m
			d.Relationships = append(d.Relationships, relationship{own.ID, "CONTAINS", m.ID})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(modules)) {
		d.Packages = append(d.Packages, modules[id])
	}
	data, err := json.MarshalIndent(d, "", " ")
	return append(data, '\n'), err
}

// module is a Go module as a package.
func module(path, version string) spdxPackage {
	id := "SPDXRef-" + strings.Map(func(r rune) rune { // letters, digits, '.' and '-' only
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, path+"-"+version)
	return spdxPackage{ID: id, Name: path, Version: version, Location: none,
		Refs: []externalRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}}}
}
