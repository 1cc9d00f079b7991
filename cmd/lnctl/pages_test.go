package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands that the pages name are there, and take the flags and the number of
// arguments that the pages give them.
func TestCommandsOfPages(t *testing.T) {
	t.Parallel()
	asked := 0
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name == ".cache" {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(name) != ".md" || name == "CHANGELOG.md" {
			return err
		}
		page, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			return err
		}
		for _, line := range commandsOf(string(page)) {
			asked++
			if err := parse(strings.Fields(line)); err != "" {
				t.Errorf("%s: lnctl %s: %s", name, line, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if asked < 100 {
		t.Errorf("%d commands, want those of all pages", asked)
	}
}

// commandsOf returns the arguments of each lnctl in code of a page.
func commandsOf(page string) (all []string) {
	for _, m := range regexp.MustCompile("`lnctl ([^`|…]+)`").FindAllStringSubmatch(page, -1) {
		all = append(all, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^ {4,}(?:# )?lnctl (.+)$`).FindAllStringSubmatch(page, -1) {
		line, _, _ := strings.Cut(m[1], " #")
		line, _, _ = strings.Cut(line, " &&")
		all = append(all, line)
	}
	return all
}

// optional are arguments in brackets.
var optional = regexp.MustCompile(`\[[^\]]*\]`)

// standIns are values for words that stand for one.
var standIns = strings.NewReplacer("ADDRESS", "10.1.0.5", "SHELL", "bash")

// parse returns what is wrong with the arguments of lnctl. Without arguments a command is
// only mentioned.
func parse(args []string) string {
	root, _ := rootCommand()
	root.InitDefaultCompletionCmd(args...)
	line, _, _ := strings.Cut(strings.Join(args, " "), " >")
	args = strings.Fields(standIns.Replace(optional.ReplaceAllString(line, "")))
	if len(args) == 0 || args[0] == "COMMAND" || args[0] == "-o" {
		return ""
	}
	if args[0] == "--version" {
		args[0] = "version"
	}
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root {
		return "there is no such command"
	}
	if cmd.InitDefaultHelpFlag(); cmd.ParseFlags(rest) != nil {
		return cmd.ParseFlags(rest).Error()
	}
	if len(cmd.Flags().Args()) == 0 || cmd.Args == nil {
		return ""
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err.Error()
	}
	return ""
}
