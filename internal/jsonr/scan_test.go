package jsonr

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// members and items return the same as encoding/json.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : 1 , "b":[1,2,{"c":"}"}],"d":"\\\"","e":null}`, `{"a":1,"a":2}`, `[]`, `[ 1 ,"x", [] ,{}]`,
		`{"\u00e9":"ü","k":-1.5e3}`, `[true,false,null]`, "{\"a\":\"\xff\"}", `"x"`, `5`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		var keys map[string]json.RawMessage
		if json.Unmarshal(data, &keys) == nil && keys != nil {
			got := map[string]json.RawMessage{}
			for _, m := range members(data) {
				got[m.name] = json.RawMessage(m.raw)
			}
			if diff := cmp.Diff(keys, got); diff != "" {
				t.Errorf("%q (-theirs +ours):\n%s", data, diff)
			}
		}
		var list []json.RawMessage
		if json.Unmarshal(data, &list) != nil || list == nil {
			return
		}
		got := items(data)
		if len(got) != len(list) {
			t.Fatalf("%q: %d items, want %d", data, len(got), len(list))
		}
		for i, item := range list {
			if string(item) != string(got[i]) {
				t.Errorf("%q: item %q, want %q", data, got[i], item)
			}
			var want string
			err := json.Unmarshal(item, &want)
			if s, ok := (Value{raw: got[i]}).Text(); ok != (err == nil && string(item) != "null") || s != want {
				t.Errorf("%q is %q, want %q (%v)", item, s, want, err)
			}
		}
	})
}
