// Command bpf builds programs for the kernel with clang, and writes the instructions of each,
// with the numbers of its maps in place of descriptors, and beside them the hashes of source and
// instructions and the compiler's version. With -check it builds nothing, and fails if source
// or instructions are others than the hashes say; if that very compiler is installed it builds
// and compares, too.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("bpf", flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := flags.Bool("check", false, "compare and write nothing")
	source := flags.String("source", "", "the program; without it all of them")
	clang := flags.String("clang", "clang-16", "the compiler")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	sources := programs
	if *source != "" {
		sources = []string{*source}
	}
	for _, s := range sources {
		p := program{source: s, clang: *clang}
		act := p.write
		if *check {
			act = p.check
		}
		if err := act(); err != nil {
			_, _ = fmt.Fprintln(stderr, "bpf:", err)
			return 1
		}
	}
	return 0
}

// programs are those of the tree.
var programs = []string{
	"internal/responder/program/respond.c",
	"internal/fastpath/program/in.c",
	"internal/fastpath/program/out.c",
	"internal/fastpath/program/uplink_in.c",
	"internal/fastpath/program/uplink_out.c",
}

// maps are those of programs: a program has those of one line, by the numbers that stand for
// them.
var maps = [][]string{
	{"names", "scratches"},
	{"links", "states", "flows", "wires", "tunnels"},
}

type program struct{ source, clang string }

func (p program) bin() string { return strings.TrimSuffix(p.source, ".c") + ".bin" }
func (p program) sum() string { return strings.TrimSuffix(p.source, ".c") + ".sum" }

// write builds the program.
func (p program) write() error {
	version, err := p.version()
	if err != nil {
		return err
	}
	code, err := p.build()
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.bin(), code, 0o644); err != nil {
		return err
	}
	text, err := p.sums(version)
	if err != nil {
		return err
	}
	return os.WriteFile(p.sum(), text, 0o644)
}

// check compares source, instructions and hashes.
func (p program) check() error {
	have, err := os.ReadFile(p.sum())
	if err != nil {
		return err
	}
	_, compiler, _ := strings.Cut(strings.TrimSpace(string(have)), "by ")
	want, err := p.sums(compiler)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%s: source or instructions have changed: run make bpf", p.sum())
	}
	version, err := p.version()
	if err != nil || version != compiler {
		return nil //nolint:nilerr // another compiler, or none, writes other instructions
	}
	code, err := p.build()
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(p.bin()); err != nil || !bytes.Equal(have, code) {
		return fmt.Errorf("%s: %s makes other instructions of the source: run make bpf (%w)", p.bin(), version, err)
	}
	return nil
}

// sums is the content of the file of hashes.
func (p program) sums(compiler string) ([]byte, error) {
	var text bytes.Buffer
	headers, err := filepath.Glob(filepath.Join(filepath.Dir(p.source), "*.h"))
	if err != nil {
		return nil, err
	}
	for _, file := range append([]string{p.source, p.bin()}, headers...) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(data), filepath.Base(file))
	}
	fmt.Fprintf(&text, "by %s\n", compiler)
	return text.Bytes(), nil
}

// version is the compiler's, as "Debian clang version 16.0.6 (15~deb12u1)".
func (p program) version() (string, error) {
	out, err := exec.Command(p.clang, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%w: install clang-16, libbpf-dev and linux-libc-dev", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first, nil
}

func (p program) build() ([]byte, error) {
	dir, err := os.MkdirTemp("", "bpf")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	object := filepath.Join(dir, "program.o")
	// asm/types.h stands in the folder of an architecture; these headers are the same in all.
	include, err := exec.Command("gcc", "-print-multiarch").Output()
	if err != nil {
		return nil, fmt.Errorf("gcc -print-multiarch: %w", err)
	}
	cmd := exec.Command(p.clang, "-Os", "-g0", "-Wall", "-Werror", "-target", "bpfel", "-mcpu=v3",
		"-I/usr/include/"+strings.TrimSpace(string(include)), "-c", p.source, "-o", object)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	file, err := elf.Open(object)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return link(file)
}

// Relocations of BPF: a map's descriptor in a wide load, and a call of another function.
const (
	relocMap  = 1  // R_BPF_64_64
	relocCall = 10 // R_BPF_64_32
)

// link puts the program in front of the functions that it calls.
func link(file *elf.File) ([]byte, error) {
	var code []byte
	starts := map[int]int{} // of sections, by their index, in instructions
	symbols, err := file.Symbols()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"tc", ".text"} {
		at := slices.IndexFunc(file.Sections, func(s *elf.Section) bool { return s.Name == name })
		if at < 0 {
			continue
		}
		starts[at] = len(code) / 8
		data, err := file.Sections[at].Data()
		if err != nil {
			return nil, err
		}
		code = append(code, data...)
	}
	for _, s := range file.Sections {
		start, ours := starts[int(s.Info)]
		if s.Type != elf.SHT_REL || !ours {
			continue
		}
		rels, err := s.Data()
		if err != nil {
			return nil, err
		}
		for ; len(rels) >= 16; rels = rels[16:] {
			offset, info := binary.LittleEndian.Uint64(rels), binary.LittleEndian.Uint64(rels[8:])
			at := start + int(offset/8)
			if err := relocate(code, at, uint32(info), symbols[info>>32-1], starts); err != nil {
				return nil, fmt.Errorf("instruction %d: %w", at, err)
			}
		}
	}
	return code, nil
}

func relocate(code []byte, at int, kind uint32, to elf.Symbol, starts map[int]int) error {
	number := code[8*at+4:]
	switch kind {
	case relocMap:
		n := -1
		for _, names := range maps {
			n = max(n, slices.Index(names, to.Name))
		}
		if n < 0 {
			return fmt.Errorf("%q is no map", to.Name)
		}
		code[8*at+1] |= 1 << 4 // BPF_PSEUDO_MAP_FD
		binary.LittleEndian.PutUint32(number, uint32(n))
	case relocCall:
		start, known := starts[int(to.Section)]
		if !known {
			return fmt.Errorf("call of %q, which is not there", to.Name)
		}
		target := start + int(to.Value/8)
		if elf.ST_TYPE(to.Info) == elf.STT_SECTION { // the number says where in the section
			target += int(int32(binary.LittleEndian.Uint32(number))) + 1
		}
		binary.LittleEndian.PutUint32(number, uint32(target-at-1))
	default:
		return fmt.Errorf("relocation %d", kind)
	}
	return nil
}
