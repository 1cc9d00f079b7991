package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// NOTICE and the bill of materials name every module of a binary with its licence; here the
// binary is this test.
func TestNoticeAndSBOM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, notice, sbom := filepath.Join(dir, "bin"), filepath.Join(dir, "NOTICE"), filepath.Join(dir, "sbom.json")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "lnctl")); err != nil {
		t.Fatal(err)
	}
	if err := run(bin, ".", "v1.2.3", notice, sbom); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(notice)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"github.com/CycloneDX/cyclonedx-go v", "(Apache-2.0), in lnctl", "std 1.", "Copyright 2009 The Go Authors"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in NOTICE", want)
		}
	}
	data, err := os.ReadFile(sbom)
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := json.Unmarshal(data, &bom); err != nil || bom.SerialNumber != "" || bom.Metadata.Timestamp != "" || len(*bom.Components) < 2 {
		t.Errorf("%v: %s", err, data)
	}
	for _, c := range *bom.Components {
		if c.Licenses == nil || c.PackageURL == "" {
			t.Errorf("%+v", c)
		}
	}
}

// A binary of another processor is named, and so is what is no binary at all.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	build := func(arch string) {
		t.Helper()
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := checkPrograms(dir, "arm64"); err == nil {
		t.Error("a release without binaries was taken")
	}
	for _, arch := range []string{"amd64", "arm64"} {
		build(arch)
		for other := range machines {
			if err := checkPrograms(dir, other); (err == nil) != (arch == other) {
				t.Errorf("a binary for %s as one for %s: %v", arch, other, err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkPrograms(dir, "arm64"); err == nil || !strings.Contains(err.Error(), "script") {
		t.Errorf("a script: %v", err)
	}
	if err := checkPrograms(dir, "mips"); err == nil {
		t.Error("an unknown processor was taken")
	}
}

func TestIdentify(t *testing.T) {
	for text, want := range map[string]string{
		"Apache License\n Version 2.0, January 2004":                                                                 "Apache-2.0",
		"Permission is hereby granted, free of charge, to any person\nobtaining a copy":                              "MIT",
		"Redistribution and use in source and binary forms, with or\nwithout … Neither the name of Google":           "BSD-3-Clause",
		"Redistribution and use in source and binary forms":                                                          "BSD-2-Clause",
		"Permission is hereby granted, free of charge, to any person obtaining a copy … Apache License, Version 2.0": "Apache-2.0 MIT",
		"All rights reserved.": "",
	} {
		if got := strings.Join(identify(text), " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if _, err := licenceOf(t.TempDir()); err == nil {
		t.Error("a module without a licence was taken")
	}
}
