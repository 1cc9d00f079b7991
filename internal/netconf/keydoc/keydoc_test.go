package keydoc

import (
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// Every key of a plugin has a whole text, and every text is one key's.
func TestEveryKeyHasItsText(t *testing.T) {
	var plugins netconf.Plugin
	for _, p := range netconf.Plugins() {
		plugins |= p
	}
	used := map[string]bool{}
	var check func(in string, keys []Key)
	check = func(in string, keys []Key) {
		for _, k := range keys {
			path := in + k.Name
			switch {
			case k.Path == "":
				t.Errorf("%s: no text", path)
			case k.Type == "" || !strings.HasSuffix(k.Does, "."):
				t.Errorf("%s: %+v: want a type, and a meaning that ends with a dot", path, k.Text)
			case k.CNI && k.From != "":
				t.Errorf("%s: is CNI's by the table, and of %s by its text", path, k.From)
			}
			used[k.Path] = true
			check(path+".", k.Inside)
		}
	}
	check("", Table(plugins))
	seen := map[string]bool{}
	for _, section := range sections() {
		for _, text := range section {
			if !used[text.Path] {
				t.Errorf("%s: a text about no key", text.Path)
			}
			if seen[text.Path] {
				t.Errorf("%s: two texts", text.Path)
			}
			seen[text.Path] = true
		}
	}
}
