package enforce

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// initSCTP is a packet that begins an association.
func initSCTP(from, to uint16) []byte {
	p := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	p = append(p, make([]byte, 8)...) // tag of the other end, and the checksum
	p = append(p, 1, 0, 0, 20)        // INIT
	p = append(p, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// Each protocol has ports of its own: by number, by range and by name, for SCTP and UDP as for TCP.
func TestProtocols(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, l *lab) {
		var in net.PacketConn
		l.must(lntest.In(t, l.paths["a"], func() (err error) {
			in, err = net.ListenPacket("ip4:132", "0.0.0.0")
			return err
		}))
		t.Cleanup(func() { _ = in.Close() })
		var out net.Conn
		l.must(lntest.In(t, l.paths["c"], func() (err error) {
			out, err = net.Dial("ip4:132", l.address("a", "tcp4"))
			return err
		}))
		t.Cleanup(func() { _ = out.Close() })
		from := uint16(20000)
		sctp := func(port int, patience time.Duration) error {
			from++ // another association
			packet := initSCTP(from, uint16(port))
			heard, err := lntest.Heard(in, string(packet), patience, func() error {
				_, err := out.Write(packet)
				return err
			})
			if err == nil && !heard {
				err = os.ErrDeadlineExceeded
			}
			return err
		}
		l.cluster()
		pod := apiPod("x", "a", "1")
		pod.Spec.Containers[0].Ports[0].Protocol = "SCTP"
		l.e.Pod(pod, false)
		udp := func(port int, patience time.Duration) error {
			_, err := lntest.Ask(t, l.paths["c"], "udp", netip.AddrPortFrom(netip.MustParseAddr("10.10.0.2"), uint16(port)).String(), patience)
			return err
		}
		for _, tt := range []struct {
			ports                          string
			first, second, first2, second2 bool // of SCTP, and of UDP
		}{
			{`{"protocol":"SCTP","port":4711}`, true, false, false, false},
			{`{"protocol":"SCTP","port":4712,"endPort":4799}`, false, true, false, false},
			{`{"protocol":"SCTP","port":"main"}`, true, false, false, false},
			{`{"protocol":"SCTP"}`, true, true, false, false},
			{`{"protocol":"UDP","port":4712}`, false, false, false, true},
			{`{"protocol":"UDP","port":4700,"endPort":4711}`, false, false, true, false},
			{`{"protocol":"UDP","port":"main"}`, false, false, false, false}, // the name is that of a port of SCTP
			{`{"protocol":"TCP"}`, false, false, false, false},
		} {
			l.policy("some", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[{"ports":[`+tt.ports+`]}]}`)
			for _, of := range []struct {
				name    string
				port    int
				may     bool
				connect func(int, time.Duration) error
			}{{"SCTP", port, tt.first, sctp}, {"SCTP", port + 1, tt.second, sctp}, {"UDP", port, tt.first2, udp}, {"UDP", port + 1, tt.second2, udp}} {
				patience := lntest.WaitForNone
				if of.may {
					patience = lntest.WaitForAnswer
				}
				if err := of.connect(of.port, patience); (err == nil) != of.may {
					t.Errorf("with %s, %s port %d: %v, may %v", tt.ports, of.name, of.port, err, of.may)
				}
			}
		}
	})
}
