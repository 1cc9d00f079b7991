package jsonw

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestObject(t *testing.T) {
	var o Object
	o.String("s", "x")
	o.OptionalString("none", "")
	o.Strings("list", []string{"a", "b"})
	o.Strings("nolist", nil)
	o.Uint("u", 1<<63)
	o.OptionalInt("zero", 0)
	o.OptionalInt("i", 7)
	o.Bool("b", true)
	o.Object("o", func(o *Object) { o.Int("n", -5); o.String("s", "{") })
	o.Object("e", func(*Object) {})
	o.Raw("r", new(Object).Bytes())
	o.Objects("l", 0, nil)
	o.Objects("ll", 3, func(i int, o *Object) {
		if i > 0 {
			o.Int("i", i)
		}
	})
	want := `{"s":"x","list":["a","b"],"u":9223372036854775808,"i":7,"b":true,"o":{"n":-5,"s":"{"},"e":{},"r":{},"l":[],"ll":[{},{"i":1},{"i":2}]}`
	if diff := cmp.Diff(want, string(o.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// encoding/json reads back the strings that are written, whatever they hold.
func FuzzStrings(f *testing.F) {
	for _, s := range []string{"", "plain", `quote " and \`, "new\nline", "ünï", "\x00\x7f", "<&>", " "} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return // JSON is UTF-8: what is not is replaced
		}
		var o Object
		o.String(name, value)
		var got map[string]string
		if err := json.Unmarshal(o.Bytes(), &got); err != nil || got[name] != value || len(got) != 1 {
			t.Errorf("%v: %q: %q became %q", err, name, value, got)
		}
	})
}
