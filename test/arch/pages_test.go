package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// lineOfPage is how long a line of a page may be, rows of tables apart.
const lineOfPage = 100

// vague are words of which a reader has to guess the meaning.
var vague = regexp.MustCompile(`(?i)\b((no|some|any|every)body|(some|any|every)one|no one)\b|\bas (it|they) should be\b`)

// unnamed are words in the place of a subject: the owner, the caller, the host.
var unnamed = regexp.MustCompile(`(?i)\bwho(m|ever)?\b|^\s*// (?-i:W)hat\b`)

// TestPagesAreEasyToRead holds the lines and words of the module's pages.
func TestPagesAreEasyToRead(t *testing.T) {
	root := os.DirFS("../..")
	pages := 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (name == ".cache" || name == ".git" || name == "bin") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(name) != ".md" {
			return err
		}
		text, err := fs.ReadFile(root, name)
		for _, fault := range faultsOfPage(string(text)) {
			t.Errorf("%s: %s", name, fault)
		}
		pages++
		return err
	})
	if err != nil || pages < 10 {
		t.Fatalf("%d pages: %v", pages, err)
	}
}

// TestSourcesNameTheirSubjects holds the words of comments, messages and help.
func TestSourcesNameTheirSubjects(t *testing.T) {
	root := os.DirFS("../..")
	files := 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (name == ".cache" || name == ".git" || name == "bin" || name == "test/arch") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(name) != ".go" {
			return err
		}
		text, err := fs.ReadFile(root, name)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			for _, words := range []*regexp.Regexp{vague, unnamed} {
				if word := words.FindString(line); word != "" {
					t.Errorf("%s:%d: %q does not name the subject: %s", name, n, word, strings.TrimSpace(line))
				}
			}
		}
		files++
		return err
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files: %v", files, err)
	}
}

func TestFaultsOfPage(t *testing.T) {
	long := strings.Repeat("é ", lineOfPage/2) + "x"
	for text, want := range map[string]int{
		"short\n":                       0,
		long[:len(long)-1] + "\n":       0,
		long + "\n":                     1,
		"|" + long + "|\n":              0,
		"Someone comes.\n":              1,
		"They are as they should be.\n": 1,
		"<!-- what follows is written by make bench -->\n" + long + "\n<!-- end of what is written by make bench -->\n":                  0,
		"<!-- what follows is written by make bench -->\n" + long + "\n<!-- end of what is written by make bench -->\n" + long + "\nx\n": 1,
	} {
		if got := faultsOfPage(text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
}

func faultsOfPage(text string) (faults []string) {
	written := false // by make bench
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "<!-- what follows is written"):
			written = true
		case strings.HasPrefix(line, "<!-- end of what is written"):
			written = false
		case written:
			continue
		}
		if n := utf8.RuneCountInString(line); n > lineOfPage && !strings.HasPrefix(line, "|") {
			faults = append(faults, "a line has more than 100 characters: "+line)
		}
		if word := vague.FindString(line); word != "" {
			faults = append(faults, word+": "+line)
		}
	}
	return faults
}
