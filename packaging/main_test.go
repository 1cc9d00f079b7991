package main

import (
	"encoding/json"
	"os"
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
