package ruleset

import (
	"bytes"
	"slices"
	"testing"
)

// A key that has no interface gets the one of the container.
func TestTurn(t *testing.T) {
	before := Elem{Set: &Set{Name: "masq4", Key: Tuple{SAddr4}}, Key: []byte{10, 0, 0, 2}, Owner: "o"}
	to := &Set{Name: "masq4", Key: Tuple{IIFName, SAddr4}}
	if _, ok := before.As(to, nil); ok {
		t.Error("turned without knowing the interface")
	}
	got, ok := before.As(to, map[string][]byte{string([]byte{10, 0, 0, 2}): IIFName.bytes("br0")})
	if want := to.Key.Of([]byte("br0"), []byte{10, 0, 0, 2}); !ok || string(got.Key) != string(want) || got.Owner != "o" {
		t.Errorf("turned: %v, %v", got, ok)
	}
}

// A VNI was said to be an address in earlier releases: the elements of tunnels stay.
func TestEarlierVNI(t *testing.T) {
	for _, s := range []*Set{&hosts4, &hosts6, &underlay} {
		number, _ := append(slices.Clone(s.Key[:len(s.Key)-1]), Field{typeIPv4, 4, nowhere, 0}).Datatype()
		key, ok := TupleOf(number)
		if !ok {
			t.Fatalf("%s: type %#x is not known", s, number)
		}
		var values [][]byte
		for i, f := range s.Key {
			values = append(values, bytes.Repeat([]byte{byte(i + 1)}, int(f.Size)))
		}
		e := Elem{Set: &Set{Family: s.Family, Name: s.Name, Key: key}, Key: key.Of(values...), Owner: "net"}
		got, ok := e.As(s, nil)
		if !ok || !bytes.Equal(got.Key, s.Key.Of(values...)) || got.Owner != "net" {
			t.Errorf("%s: %v becomes %v, %v", s, e, got, ok)
		}
	}
}
