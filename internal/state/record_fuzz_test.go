package state

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Whatever lies where records are, they are read or set aside, and what was
// read is the same after it was written again.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"Name":"n","Driver":"bridge","Bridge":"br0","Fingerprint":"f","Config":{"a":[1,{"b":"\u2028"}]}}`))
	f.Add([]byte(`{"Network":"n","ContainerID":"c","Phase":"ready","NetnsID":{"Dev":4,"Ino":5,"Cookie":18446744073709551615},"Addresses":[{"Prefix":"10.1.0.2/24","Gateway":""}],"Routes":[{"Dst":"::/0","Table":0,"Scope":null}],"DNS":{"Search":["a\"b"]},"Links":[{"Name":"x"}],"Ports":[{"Protocol":"udp","HostIP":"::1","Sources":["10.0.0.0/8"]}],"Config":{}}`))
	f.Add([]byte(`{"ID":"s","Path":"/run/\u0000"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := New(t.TempDir())
		lay := func(path string, err error) {
			if err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		lay(d.networkFile("n"))
		if n, err := d.LoadNetwork("n"); refused(t, err) == nil {
			again(t, n, n.encode())
		}
		lay(d.endpointFile("n", "c", "eth0"))
		if e, err := d.LoadEndpoint("n", "c", "eth0"); refused(t, err) == nil {
			again(t, e, e.encode())
			var second Endpoint
			if err := second.decode(e.encode()); err != nil || !cmp.Equal(e, second, equal...) {
				t.Errorf("%s, written and read again (%v): %s", e.encode(), err, cmp.Diff(e, second, equal...))
			}
		}
		lay(d.sandboxFile("s"))
		if s, err := d.LoadSandbox("s"); refused(t, err) == nil {
			again(t, s, s.encode())
		}
		if all, err := d.Endpoints("n"); refused(t, err) == nil && len(all) > 1 {
			t.Errorf("%d endpoints", len(all))
		}
	})
}

func refused(t *testing.T, err error) error {
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt or none", err)
	}
	return err
}

func again[T any](t *testing.T, first T, written []byte) {
	t.Helper()
	var second T
	if err := json.Unmarshal(written, &second); err != nil {
		t.Fatalf("%+v was written as %s: %v", first, written, err)
	}
	if diff := cmp.Diff(first, second, equal...); diff != "" {
		t.Errorf("written as %s (-first +second):\n%s", written, diff)
	}
}

// equal has null and missing be the same; what others wrote is written as it came.
var equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(), cmpopts.IgnoreTypes(json.RawMessage{})}

// No name leads out of the directory of records.
func FuzzNames(f *testing.F) {
	f.Add("n", "c", "eth0")
	f.Add("..", "../../x", "/etc")
	f.Add("a\x00b", ".", strings.Repeat("x", 300))
	f.Fuzz(func(t *testing.T, network, cid, ifName string) {
		parent := t.TempDir()
		d := New(filepath.Join(parent, "state"))
		err := errors.Join(d.SaveNetwork(Network{Name: network}), d.SaveSandbox(Sandbox{ID: cid}),
			d.SaveEndpoint(Endpoint{Network: network, ContainerID: cid, IfName: ifName}))
		if err == nil {
			if _, err := d.LoadEndpoint(network, cid, ifName); err != nil {
				t.Errorf("written, but: %v", err)
			}
		}
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "state" {
				t.Errorf("%q %q %q made %q beside the records", network, cid, ifName, e.Name())
			}
		}
	})
}
