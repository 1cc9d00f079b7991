package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// machines are the processors of a release, as GOARCH and the header of a binary name them.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkPrograms says which binary of a directory is not for a processor, or needs a library of the
// host: a plugin runs on hosts of any distribution. Without a processor nothing is checked.
func checkPrograms(bin, arch string) error {
	if arch == "" {
		return nil
	}
	want, known := machines[arch]
	if !known {
		return fmt.Errorf("-arch %q: want amd64 or arm64", arch)
	}
	files, err := os.ReadDir(bin)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no binary in %s", bin)
	}
	var errs []error
	for _, f := range files {
		if err := checkProgram(filepath.Join(bin, f.Name()), want); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func checkProgram(path string, want elf.Machine) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if f.Machine != want {
		return fmt.Errorf("it is for %s, want %s", f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return errors.New("it is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
