package link

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// An attachment announces its addresses to all neighbours that may know an earlier owner: the
// neighbours on a bridge of another maker, and all if the addresses had one.
func TestAnnounce(t *testing.T) {
	for _, tt := range []struct {
		name, bridge string // its alias
		unknown      bool
		want         bool
	}{
		{"had an owner", "libnet:net1", false, true},
		{"unknown", "libnet:net1", true, false},
		{"unknown, on the bridge of another maker", "other:net1", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newLinks(t)
			b := testBridge()
			b.Alias = tt.bridge
			mustBridge(t, h, b)
			ear := newNetns(t)
			mustAttach(t, h, Link{Owner: "x", HostName: "vethx", Bridge: "br0", Netns: ear, IfName: "eth0"})
			var socket int
			if err := ear.Do(func() (err error) {
				socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{0x08, 0x06})))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(socket) }()
			l := testLink(newNetns(t))
			l.Unknown = tt.unknown
			mustAttach(t, h, l)
			last := testLink(newNetns(t)) // the announcement of this one comes, and after those before
			last.HostName, last.Owner, last.Addrs = "vethc2", "libnet:net1/c2/eth0", lntest.Prefixes("10.1.0.3/24", "fd00:1::3/64")
			mustAttach(t, h, last)
			heard := map[byte]bool{}
			for !heard[3] {
				frame := make([]byte, 64)
				if n, err := unix.Read(socket, frame); err != nil || n < 18 {
					t.Fatalf("%d bytes of ARP: %v", n, err)
				}
				heard[frame[17]] = true // the last byte of the sender's address
			}
			if heard[2] != tt.want {
				t.Errorf("heard of 10.1.0.2: %t, want %t", heard[2], tt.want)
			}
		})
	}
}
