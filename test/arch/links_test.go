package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestLinks follows every relative link of the module's pages: the file is there,
// and so is the heading that an anchor names.
func TestLinks(t *testing.T) {
	root := os.DirFS("../..")
	pages := map[string]page{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (name == ".cache" || name == ".git" || name == "bin") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(name) != ".md" {
			return err
		}
		text, err := fs.ReadFile(root, name)
		pages[name] = parsePage(string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 10 {
		t.Fatalf("%d pages", len(pages))
	}
	links := 0
	for name, p := range pages {
		for _, l := range p.links {
			links++
			if err := follow(root, pages, name, l); err != nil {
				t.Errorf("%s: link %q: %v", name, l, err)
			}
		}
	}
	if links < 50 {
		t.Errorf("%d relative links found", links)
	}
}

// The check must be able to fail.
func TestLinksThatLeadNowhere(t *testing.T) {
	root := os.DirFS("../..")
	pages := map[string]page{
		"docs/a.md": parsePage("# One `two`: three\n[x](b.md#here) `[no](link)`\n```\n# no heading\n[no](link)\n```\n## Three\n## Three\n[1]: ../go.mod\n"),
		"docs/b.md": parsePage("## Here\n"),
	}
	if got := fmt.Sprint(pages["docs/a.md"].links); got != "[b.md#here ../go.mod]" {
		t.Errorf("links: %s", got)
	}
	for link, ok := range map[string]bool{
		"b.md": true, "b.md#here": true, "#one-two-three": true, "#three": true, "#three-1": true, "../go.mod": true,
		"c.md": false, "b.md#there": false, "#no-heading": false, "../go.sum.old": false,
	} {
		if err := follow(root, pages, "docs/a.md", link); (err == nil) != ok {
			t.Errorf("%s: %v, want success: %v", link, err, ok)
		}
	}
}

// page is the links of a page that lead into the module, and its anchors.
type page struct {
	links   []string
	anchors map[string]bool
}

var (
	linkInText = regexp.MustCompile(`\]\(([^)\s]+)\)|(?m:^\[[^\]]+\]: (\S+)$)`)
	codeSpan   = regexp.MustCompile("`[^`]*`")
)

func parsePage(text string) page {
	p := page{anchors: map[string]bool{}}
	var prose strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		if heading, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); is && line[0] == '#' {
			p.addAnchor(heading)
		}
		prose.WriteString(line)
	}
	// A link's text may have code in it, and its target never does.
	for _, m := range linkInText.FindAllStringSubmatch(codeSpan.ReplaceAllString(prose.String(), ""), -1) {
		if target := m[1] + m[2]; !strings.Contains(target, "://") && !strings.HasPrefix(target, "mailto:") {
			p.links = append(p.links, target)
		}
	}
	return p
}

// addAnchor adds the anchor that GitHub makes of a heading: lower case, dashes for
// spaces, no punctuation, and a number if there is one of that name already.
func (p page) addAnchor(heading string) {
	anchor := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
	unique := anchor
	for i := 1; p.anchors[unique]; i++ {
		unique = fmt.Sprintf("%s-%d", anchor, i)
	}
	p.anchors[unique] = true
}

// follow returns why a link of the page called from leads nowhere.
func follow(root fs.FS, pages map[string]page, from, link string) error {
	file, anchor, hasAnchor := strings.Cut(link, "#")
	to := from
	if file != "" {
		to = filepath.Join(filepath.Dir(from), file)
	}
	p, isPage := pages[to]
	if !isPage {
		if _, err := fs.Stat(root, to); err != nil {
			return err
		}
	}
	if hasAnchor && !p.anchors[anchor] {
		return fmt.Errorf("%s has no heading #%s", to, anchor)
	}
	return nil
}
