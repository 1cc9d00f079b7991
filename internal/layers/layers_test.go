package layers

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/jsonr"
)

func parse(t *testing.T, text string) *jsonr.Object {
	t.Helper()
	o, err := jsonr.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The examples of RFC 7386 (appendix A) that are about objects; a null stays, and means missing.
func TestMergePatch(t *testing.T) {
	none := func(string, Values, Values) func(string) bool { return nil }
	for _, tt := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{"a":null}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"a":null,"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d","c":null}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{"a":{}}`, `{"a":{"bb":{"ccc":7}}}`, `{"a":{"bb":{"ccc":7}}}`},
		{`{"a":{"b":1,"c":2}}`, `{"A":{"C":3}}`, `{"A":{"b":1,"C":3}}`}, // no case
		{`{"a":1}`, `{"A":2,"a":3}`, `{"A":2,"a":3}`},
		{`{"k\u0001\"":1}`, `{}`, `{"k\u0001\"":1}`},
	} {
		text, _ := Merge(none, Layer{"low", parse(t, tt[0])}, Layer{"high", parse(t, tt[1])})
		var got, want any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := json.Unmarshal([]byte(tt[2]), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s < %s (-want +got):\n%s", tt[0], tt[1], diff)
		}
	}
}

func TestOrigins(t *testing.T) {
	rule := func(place string, lower, higher Values) func(string) bool {
		if place != "ipam" || higher("ranges").Missing() || lower("subnet").Missing() {
			return nil
		}
		return func(key string) bool { return key == "subnet" }
	}
	text, origins := Merge(rule,
		Layer{"defaults", parse(t, `{"mtu":1400,"names":true,"ipam":{"cooldown":60,"subnet":"auto/24"}}`)},
		Layer{"template web", parse(t, `{"MTU":9000,"ipam":{"type":"ipam-ln","sticky":true},"vlanTrunk":[{"id":1}]}`)},
		Layer{"conf", parse(t, `{"name":"n","names":null,"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}]],"sticky":false}}`)})
	const want = `{"name":"n","names":null,"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}]],"sticky":false,"type":"ipam-ln","cooldown":60},"MTU":9000,"vlanTrunk":[{"id":1}]}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for key, from := range map[string]string{
		"mtu": "template web", "name": "conf", "ipam.cooldown": "defaults", "ipam.type": "template web", "ipam.sticky": "conf",
		"ipam.ranges[0][0].subnet": "conf", "vlanTrunk[0].id": "template web", "names": "conf", "ipam": "", "ipam.subnet": "", "mtux": "",
	} {
		if got := origins.Of(key); got != from {
			t.Errorf("%s is from %q, want %q", key, got, from)
		}
	}
}

// Whatever the layers are, the result is JSON, and the highest one's values count.
func FuzzMerge(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, `{"a":{"c":null},"A":2}`)
	f.Add(`{"a":null,"a":{}}`, `{"a":{"\u0000":[]}}`)
	f.Fuzz(func(t *testing.T, low, high string) {
		l, err := jsonr.Parse([]byte(low))
		h, err2 := jsonr.Parse([]byte(high))
		if err != nil || err2 != nil {
			return
		}
		text, _ := Merge(func(string, Values, Values) func(string) bool { return nil }, Layer{"low", l}, Layer{"high", h})
		m, err := jsonr.Parse(text)
		if err != nil {
			t.Fatalf("%s < %s: %s: %v", low, high, text, err)
		}
		for v := range h.Values() {
			if now := h.At(v.Name()); !now.IsObject() && string(now.Raw()) != string(m.At(v.Name()).Raw()) {
				t.Errorf("%s < %s: %s is %s", low, high, v.Name(), m.At(v.Name()).Raw())
			}
		}
	})
}
