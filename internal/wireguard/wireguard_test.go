package wireguard

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testKey is 32 times the byte.
func testKey(b byte) (k Key) {
	for i := range k {
		k[i] = b
	}
	return k
}

func peer(b byte, endpoint string, allowed ...string) Peer {
	p := Peer{PublicKey: testKey(b), Endpoint: netip.MustParseAddrPort(endpoint)}
	for _, a := range allowed {
		p.Allowed = append(p.Allowed, netip.MustParsePrefix(a))
	}
	return p
}

func TestTowards(t *testing.T) {
	t.Parallel()
	one, two := peer(1, "192.0.2.1:51", "10.1.0.0/24", "fd00:1::/64"), peer(2, "192.0.2.2:51", "10.2.0.0/24")
	want := State{PrivateKey: PrivateKey(testKey(9)), Port: 51, Peers: []Peer{one, two}}
	swapped := one
	swapped.Allowed = []netip.Prefix{one.Allowed[1], one.Allowed[0]}
	roamed, wider := peer(1, "198.51.100.1:4", "10.1.0.0/24", "fd00:1::/64"), peer(2, "192.0.2.2:51", "10.2.0.0/24", "10.3.0.0/24")
	key, port := want.PrivateKey, want.Port
	for name, tt := range map[string]struct {
		have State
		want Change
	}{
		"as wanted":       {State{PrivateKey: key, Port: 51, Peers: []Peer{two, swapped}}, Change{}},
		"fresh":           {State{}, Change{PrivateKey: &key, Port: &port, Set: []Peer{one, two}}},
		"roamed, wider":   {State{PrivateKey: key, Port: 51, Peers: []Peer{roamed, wider}}, Change{Set: []Peer{one, two}}},
		"one too much":    {State{PrivateKey: key, Port: 51, Peers: []Peer{one, two, peer(3, "192.0.2.3:51")}}, Change{Remove: []Key{testKey(3)}}},
		"another key":     {State{PrivateKey: PrivateKey(testKey(8)), Port: 51, Peers: []Peer{one, two}}, Change{PrivateKey: &key}},
		"another port":    {State{PrivateKey: key, Port: 52, Peers: []Peer{one, two}}, Change{Port: &port}},
		"one was missing": {State{PrivateKey: key, Port: 51, Peers: []Peer{two}}, Change{Set: []Peer{one}}},
	} {
		got := tt.have.Towards(want)
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if got.Empty() != (name == "as wanted") {
			t.Errorf("%s: empty is %t", name, got.Empty())
		}
	}
}

// A private key is in no text that could be logged.
func TestPrivateKeyIsNotTold(t *testing.T) {
	t.Parallel()
	k := PrivateKey(testKey(7))
	for _, text := range []string{k.String(), k.GoString(), cmp.Diff(State{}, State{PrivateKey: k})} {
		if strings.Contains(text, Key(k).String()) || strings.Contains(text, hex.EncodeToString(k[:])) {
			t.Errorf("%q has the key", text)
		}
	}
}

// The device of a wireguard-go is read and changed by its socket; what goes wrong there is
// told.
func TestByText(t *testing.T) {
	t.Parallel()
	asked, answers := make(chan string, 1), make(chan string, 1)
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	answers <- "private_key=" + testKey(9).hex() + "\nlisten_port=51\nfwmark=0\n" +
		"public_key=" + testKey(1).hex() + "\npreshared_key=" + testKey(0).hex() + "\nendpoint=[2001:db8::1]:51\nlast_handshake_time_sec=0\nallowed_ip=10.1.0.0/24\nallowed_ip=fd00:1::/64\n" +
		"public_key=" + testKey(2).hex() + "\nendpoint=192.0.2.2:51\nerrno=0\n\n"
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			asked <- string(buf[:n])
			_, _ = c.Write([]byte(<-answers))
			_ = c.Close()
		}
	}()
	d := Device{"wg-x", socket}
	got, err := d.Read()
	want := State{PrivateKey: PrivateKey(testKey(9)), Port: 51, Peers: []Peer{peer(1, "[2001:db8::1]:51", "10.1.0.0/24", "fd00:1::/64"), peer(2, "192.0.2.2:51")}}
	if err != nil || !got.Towards(want).Empty() {
		t.Errorf("got %+v, %v", got, err)
	}
	if q := <-asked; q != "get=1\n\n" {
		t.Errorf("asked %q", q)
	}
	key, port := want.PrivateKey, uint16(77)
	change := Change{PrivateKey: &key, Port: &port, Set: want.Peers[:1], Remove: []Key{testKey(2)}}
	answers <- "errno=0\n\n"
	if err := d.Change(change); err != nil {
		t.Error(err)
	}
	wantAsked := "set=1\nprivate_key=" + testKey(9).hex() + "\nlisten_port=77\npublic_key=" + testKey(2).hex() + "\nremove=true\npublic_key=" + testKey(1).hex() +
		"\nendpoint=[2001:db8::1]:51\nreplace_allowed_ips=true\nallowed_ip=10.1.0.0/24\nallowed_ip=fd00:1::/64\n\n"
	if q := <-asked; q != wantAsked {
		t.Errorf("asked %q\nwant %q", q, wantAsked)
	}
	for text, is := range map[string]error{"errno=-98\n\n": ErrPortInUse, "errno=-22\n\n": nil, "": nil, "private_key=1\n": nil} {
		answers <- text
		err := d.Change(change)
		<-asked
		if err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("answer %q: %v", text, err)
		}
	}
	_ = l.Close()
	if _, err := d.Read(); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}

// A key file that other users could have read or written is not used.
func TestReadKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := testKey(9).String() + "\n"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string // in the error; empty: none
	}{
		"good":           {good, 0o600, ""},
		"read only":      {good, 0o400, ""},
		"of the group":   {good, 0o640, "its mode is 0640: want 0600"},
		"of all":         {good, 0o604, "its mode is 0604"},
		"written by all": {good, 0o602, "its mode is 0602"},
		"empty":          {"", 0o600, "it is empty"},
		"zero":           {Key{}.String(), 0o600, "all zero"},
		"too long":       {good + good, 0o600, "want 44 characters of base64"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		k, err := ReadKeyFile(path)
		switch {
		case tt.want == "" && (err != nil || k != Clamp(testKey(9))):
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), `privateKeyFile: "`+path)):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(fifo); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("FIFO: %v", err)
	}
}
