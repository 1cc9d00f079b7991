package ipamstore

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever lies in the pool's directory and in the index, the store works, and
// gives no address away whose file tells an owner.
func FuzzDirectory(f *testing.F) {
	f.Add("10.1.0.2", []byte("c9\r\neth0"), "state", []byte("ipamstore1 x 0 0 clean 0"))
	f.Add("10.1.0.2", []byte{}, "b.10.1.0.0", []byte{0xff})
	f.Add("10.1.0.3", []byte("old"), "cooling", []byte("\xff\xff\xff\xff\xff\xff\xff\xff0123456789"))
	f.Add("fd00::2", []byte("a\nb\nc"), "o.000", []byte("+a\tb\tc\td\te\t10.1.0.2@1\n+"))
	f.Add("last_reserved_ip.0", []byte("10.1.0.6"), "b.nonsense", []byte{1})
	f.Add("10.1.0.2", []byte("c1\r\neth0"), "s.000", []byte("pod-1\t,,x\n"))
	f.Fuzz(func(t *testing.T, name string, lease []byte, index string, data []byte) {
		for _, n := range []string{name, index} {
			if n == "" || n == "." || n == ".." || len(n) > 200 || strings.ContainsAny(n, "/\x00") {
				t.Skip()
			}
		}
		s := mustOpen(t, Config{Sets: sets("10.1.0.0/29", "fd00::/64"), BootID: "x", Sticky: true})
		if err := errors.Join(os.MkdirAll(s.path(), 0o755), os.MkdirAll(s.index(), 0o700),
			os.WriteFile(filepath.Join(s.path(), name), lease, 0o600),
			os.WriteFile(filepath.Join(s.index(), index), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		holder, problem := parseLease(lease)
		got := mustApply(t, s, request(1))
		if problem == "" && holder != owner(1) && strings.Contains(" "+got+" ", " "+name+" ") {
			t.Errorf("%s of %v was given away", name, holder)
		}
		checkIndex(t, s)
		mustApply(t, s, request(2))
		mustRemove(t, s, 1)
		if _, err := s.Status(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Collect(t.Context(), func(h Holder) bool { return h.Owner == owner(2) }); err != nil {
			t.Error(err)
		}
		if err := s.Verify(t.Context(), owner(2), nil); err != nil {
			t.Error(err)
		}
		checkIndex(t, s)
	})
}

// Any configuration is refused with a ConfigError, or works.
func FuzzOpen(f *testing.F) {
	f.Add(`{"Network":"n","Sets":[[{"Subnet":"10.1.0.0/30"}]],"Exclude":["10.1.0.2/32"],"Strategy":"hash"}`)
	f.Add(`{"Network":"n","Sets":[[{"Subnet":"fd00::/8","Start":"fdff::"}],[{"Subnet":"10.0.0.0/31","Gateway":"10.0.0.0"}]],"Strategy":"random"}`)
	f.Add(`{"Network":"n","Sets":[[{"Subnet":"::/0"}],[{"Subnet":"0.0.0.0/0","Start":"255.255.255.255","End":"255.255.255.255"}]],"Cooldown":5}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c Config
		if json.Unmarshal([]byte(text), &c) != nil {
			t.Skip()
		}
		c.DataDir, c.LockTimeout = t.TempDir(), 0
		s, err := Open(c)
		var ce *ConfigError
		if err != nil {
			if !errors.As(err, &ce) || ce.Key == "" {
				t.Error(err)
			}
			return
		}
		leases, err := s.Apply(t.Context(), request(1))
		if err != nil {
			if !errors.Is(err, ErrExhausted) && !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		for i, l := range leases {
			a := l.Addr.Addr()
			if l.Set != i || !s.pools[i].choosable(a) || s.reserved(a) || !s.pools[i].rangeOf(a).Subnet.Contains(a) {
				t.Errorf("leased %v", l)
			}
		}
		again, err := s.Apply(t.Context(), request(1))
		if err != nil || show(again) != show(leases) {
			t.Errorf("again %v, %v, first %v", again, err, leases)
		}
		mustRemove(t, s, 1)
		if files := leaseFiles(t, s); len(files) != 0 {
			t.Errorf("left %v", files)
		}
	})
}
