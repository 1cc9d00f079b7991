package ruleset

import (
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
