package enforce

import (
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Whatever tags a pod puts before a packet, and whatever station the frame is for, it is judged before
// another pod takes the packet out.
func TestFramesWithTags(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		l.cluster()
		var in *net.UDPConn
		var mac net.HardwareAddr
		l.must(lntest.In(t, l.paths["a"], func() (err error) {
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			mac = eth0.HardwareAddr
			in, err = net.ListenUDP("udp", &net.UDPAddr{Port: port + 3})
			return err
		}))
		t.Cleanup(func() { _ = in.Close() })
		tag := func(protocol, id uint16) []byte {
			return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, protocol), id)
		}
		join := func(all ...[]byte) (b []byte) {
			for _, one := range all {
				b = append(b, one...)
			}
			return b
		}
		q, ad := uint16(unix.ETH_P_8021Q), uint16(unix.ETH_P_8021AD)
		for _, f := range []struct {
			name string
			tags []byte
			open bool // goes to the pod while no policy isolates it
		}{
			{"none", nil, true}, {"priority", tag(q, 0), true}, {"VLAN", tag(q, 5), false},
			{"two priorities", join(tag(q, 0), tag(q, 0xe000)), false},
			{"three", join(tag(q, 0), tag(q, 0), tag(q, 0)), false},
			{"of a provider", join(tag(ad, 0), tag(q, 0)), false}, {"to a provider", join(tag(q, 0), tag(ad, 0)), false},
		} {
			for _, is6 := range []bool{false, true} {
				text := f.name
				if is6 {
					text += "6"
				}
				send := func() error {
					return lntest.In(t, l.paths["c"], func() error { return frameTo(mac, f.tags, is6, text) })
				}
				if f.open {
					l.policy("deny", "{}")
					if heard, err := lntest.Heard(in, text, lntest.WaitForAnswer, send); !heard || err != nil {
						t.Errorf("%s without a policy: heard %v, %v", text, heard, err)
					}
				}
				l.policy("deny", `{"podSelector":{"matchLabels":{"pod":"a"}}}`)
				if heard, err := lntest.Heard(in, text, lntest.WaitForNone, send); heard || err != nil {
					t.Errorf("%s with a policy: heard %v, %v", text, heard, err)
				}
			}
		}
	})
}

// everyStation is the address of a frame for all stations.
var everyStation = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frameTo sends a datagram from pod c to a, with tags before the packet. That of IPv4 has no checksum.
func frameTo(station net.HardwareAddr, tags []byte, is6 bool, text string) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	udp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, port), port+3)
	udp = append(binary.BigEndian.AppendUint16(udp, uint16(8+len(text))), 0, 0)
	udp = append(udp, text...)
	sum := func(all ...[]byte) uint16 {
		n := uint32(0)
		for _, b := range all {
			if len(b)%2 == 1 {
				b = append(b[:len(b):len(b)], 0)
			}
			for i := 0; i < len(b); i += 2 {
				n += uint32(binary.BigEndian.Uint16(b[i:]))
			}
		}
		n = n>>16 + n&0xffff
		return ^uint16(n>>16 + n)
	}
	frame := append(append([]byte{}, station...), eth0.HardwareAddr...)
	frame = append(frame, tags...)
	if is6 {
		src, dst := net.ParseIP("fd10::4"), net.ParseIP("fd10::2")
		binary.BigEndian.PutUint16(udp[6:], sum(src, dst, []byte{0, byte(len(udp)), 0, unix.IPPROTO_UDP}, udp))
		frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IPV6)
		frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64)
		frame = append(append(frame, src...), dst...)
	} else {
		ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 10, 0, 4, 10, 10, 0, 2}
		binary.BigEndian.PutUint16(ip[10:], sum(ip))
		frame = append(binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP), ip...)
	}
	return unix.Sendto(fd, append(frame, udp...), 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
}
