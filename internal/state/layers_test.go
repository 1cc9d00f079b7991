package state

import (
	"os"
	"testing"
)

// Layers come and go with the record that has them.
func TestLayers(t *testing.T) {
	t.Parallel()
	d := New(t.TempDir())
	want := func(layers string, recorded bool) {
		t.Helper()
		got, is, err := d.Layers("n")
		if err != nil || string(got) != layers || is != recorded {
			t.Errorf("got %q, %v, %v, want %q, %v", got, is, err, layers, recorded)
		}
	}
	save := func(n Network) {
		t.Helper()
		n.Name = "n"
		if err := d.SaveNetwork(n); err != nil {
			t.Fatal(err)
		}
	}
	want("", false)
	save(Network{Fingerprint: "1"})
	want("", true)
	save(Network{Fingerprint: "2", Layers: []byte(`{"defaults":{}}`)})
	want(`{"defaults":{}}`, true)
	if _, err := d.SwapNetwork(Network{Name: "n", Fingerprint: "2"}, Network{Name: "n", Fingerprint: "3", Layers: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	want(`{}`, true)
	save(Network{Fingerprint: "4"})
	want("", true)
	save(Network{Fingerprint: "rebuilt", Rebuilt: true})
	want("", false)
	save(Network{Fingerprint: "4"})
	want("", true)
	save(Network{Fingerprint: "5", Layers: []byte(`{}`)})
	if err := d.DeleteNetwork("n"); err != nil {
		t.Fatal(err)
	}
	want("", false)
	if left, err := os.ReadDir(d.Path() + "/networks"); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if _, _, err := d.Layers("../n"); err == nil {
		t.Error("a bad name is taken")
	}
}
