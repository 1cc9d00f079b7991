package cni

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is taken apart is what encoding/json takes apart.
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
		if json.Unmarshal(data, &keys) == nil && isObject(data) {
			if diff := cmp.Diff(keys, splitObject(data)); diff != "" {
				t.Errorf("%q (-theirs +ours):\n%s", data, diff)
			}
		}
		var items []json.RawMessage
		if json.Unmarshal(data, &items) == nil && isList(data) {
			if got := splitList(data); len(got)+len(items) > 0 {
				if diff := cmp.Diff(items, got); diff != "" {
					t.Errorf("%q (-theirs +ours):\n%s", data, diff)
				}
			}
			for _, item := range items {
				var want string
				err := json.Unmarshal(item, &want)
				if got, ok := unquote(item); ok != (err == nil && string(item) != "null") || got != want {
					t.Errorf("%q is %q, want %q (%v)", item, got, want, err)
				}
			}
		}
	})
}
