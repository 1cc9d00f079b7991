package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// SCTP here is that of RFC 9260 as far as one association needs it, over raw sockets: a kernel
// may lack the protocol, and has it in conntrack all the same.

// Types of chunks.
const (
	sctpData       = 0
	sctpInit       = 1
	sctpInitAck    = 2
	sctpCookieEcho = 10
	sctpCookieAck  = 11
)

// sctpPacket is a packet with one chunk.
type sctpPacket struct {
	from, to uint16
	tag      uint32
	kind     byte
	flags    byte
	value    []byte // of the chunk
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p sctpPacket) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.from)
	b = binary.BigEndian.AppendUint16(b, p.to)
	b = binary.BigEndian.AppendUint32(b, p.tag)
	b = append(b, 0, 0, 0, 0, p.kind, p.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(p.value)))
	b = append(b, p.value...)
	b = append(b, make([]byte, -len(b)&3)...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parseSCTP refuses packets whose checksum is not that of their bytes.
func parseSCTP(b []byte) (p sctpPacket, err error) {
	if len(b) < 16 {
		return p, errors.New("short packet")
	}
	b = bytes.Clone(b)
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	if crc32.Checksum(b, castagnoli) != sum {
		return p, errors.New("wrong checksum")
	}
	end := 12 + int(binary.BigEndian.Uint16(b[14:]))
	if end < 16 || end > len(b) {
		return p, errors.New("short chunk")
	}
	return sctpPacket{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:]), b[12], b[13], b[16:end]}, nil
}

// initValue is the value of INIT and INIT ACK: the tag that the other side is to use, window, streams, and TSN.
func initValue(tag uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, tag)
	b = binary.BigEndian.AppendUint32(b, 65536)
	return append(b, 0, 1, 0, 1, 0, 0, 0, 1)
}

func dataValue(text string) []byte {
	return append([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, text...)
}

// serveSCTP answers at port 8080 of SCTP with its name and the client's address. Each INIT is answered
// by a tag that is the client's, but for one bit.
func (l *servicesLab) serveSCTP(name, ns string) {
	l.t.Helper()
	for _, network := range []string{"ip4:132", "ip6:132"} {
		var c *net.IPConn
		l.in(ns, func() {
			var err error
			c, err = net.ListenIP(network, nil)
			l.check(err)
		})
		l.t.Cleanup(func() { _ = c.Close() })
		go func() {
			tags := map[string]uint32{} // that clients want, by address and port
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFromIP(buf)
				if err != nil {
					return
				}
				p, err := parseSCTP(buf[:n])
				if err != nil || p.to != 8080 {
					continue
				}
				client := fmt.Sprint(from, " ", p.from)
				answer := sctpPacket{from: p.to, to: p.from, tag: tags[client]}
				switch p.kind {
				case sctpInit:
					tag := binary.BigEndian.Uint32(p.value)
					tags[client], answer.tag, answer.kind = tag, tag, sctpInitAck
					answer.value = append(initValue(tag^1), 0, 7, 0, 8, 'c', 'o', 'o', 'k')
				case sctpCookieEcho:
					answer.kind = sctpCookieAck
				case sctpData:
					answer.kind, answer.flags = sctpData, 3
					answer.value = dataValue(name + " saw " + netip.MustParseAddr(from.IP.String()).Unmap().String())
				default:
					continue
				}
				_, _ = c.WriteToIP(answer.bytes(), from)
			}
		}()
	}
}

// askSCTP begins an association out of a container, "" is the host, and returns the answer.
func (l *servicesLab) askSCTP(from, to string, port int) (got string) {
	l.t.Helper()
	ns, network := "", "ip4:132"
	if from != "" {
		ns = netnsPath(from)
	}
	if strings.Contains(to, ":") {
		network = "ip6:132"
	}
	l.in(ns, func() {
		c, err := net.DialIP(network, nil, &net.IPAddr{IP: net.ParseIP(to)})
		l.check(err)
		defer func() { _ = c.Close() }()
		a := association{c, uint16(20000 + rand.IntN(40000)), uint16(port)}
		if got, err = a.exchange(); err != nil {
			got = "error: " + err.Error()
		}
	})
	return got
}

// association is one over a raw socket that gets packets from the other side alone.
type association struct {
	conn     *net.IPConn
	from, to uint16
}

func (a association) exchange() (string, error) {
	tag := rand.Uint32() | 2
	hello, err := a.ask(sctpPacket{kind: sctpInit, value: initValue(tag)}, sctpInitAck)
	if err != nil {
		return "", fmt.Errorf("INIT: %w", err)
	}
	theirs := binary.BigEndian.Uint32(hello.value)
	if _, err := a.ask(sctpPacket{tag: theirs, kind: sctpCookieEcho, value: []byte("cook")}, sctpCookieAck); err != nil {
		return "", fmt.Errorf("COOKIE ECHO: %w", err)
	}
	answer, err := a.ask(sctpPacket{tag: theirs, kind: sctpData, flags: 3, value: dataValue("?")}, sctpData)
	if err != nil {
		return "", fmt.Errorf("DATA: %w", err)
	}
	return string(answer.value[12:]), nil
}

// ask sends a packet until one of a kind comes from the port that was asked.
func (a association) ask(p sctpPacket, want byte) (sctpPacket, error) {
	p.from, p.to = a.from, a.to
	buf := make([]byte, 2048)
	for end := time.Now().Add(5 * time.Second); ; {
		if _, err := a.conn.Write(p.bytes()); err != nil {
			return p, err
		}
		_ = a.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			n, _, err := a.conn.ReadFromIP(buf) // Read would leave the IPv4 header
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() && time.Now().Before(end) {
				break
			}
			if err != nil {
				return p, err
			}
			got, err := parseSCTP(buf[:n])
			if err == nil && got.from == a.to && got.to == a.from && got.kind == want {
				return got, nil
			}
		}
	}
}

// Associations of SCTP are led as connections of TCP are: by the address of the service, and by a
// port of the host.
func TestServiceSCTP(t *testing.T) {
	withAndWithoutNetfilter(t, func(t *testing.T, l *servicesLab) {
		l.serveSCTP("back", netnsPath("back"))
		v4, v6 := l.create("--port", "80:8080/sctp", "--publish", "8000:80/sctp")
		for _, is6 := range []bool{false, true} {
			vip := netip.MustParseAddr(v4)
			if is6 {
				vip = netip.MustParseAddr(v6)
			}
			own, gateway := pick(is6, "fd60::3", "10.60.0.3"), pick(is6, "fd60::1", "10.60.0.1")
			for _, tt := range []struct {
				from string
				to   netip.Addr
				port int
				saw  netip.Addr
			}{
				{"client", vip, 80, own},
				{"back", vip, 80, gateway},
				{"", vip, 80, gateway},
				{"client", hostAddr(is6), 8000, own},
				{"", hostAddr(is6), 8000, hostAddr(is6)},
				{"world", hostAddr(is6), 8000, worldAddr(is6)},
			} {
				if got := l.askSCTP(tt.from, tt.to.String(), tt.port); got != "back saw "+tt.saw.String() {
					t.Errorf("%q asks at %s port %d: %q, want that back sees %s", tt.from, tt.to, tt.port, got, tt.saw)
				}
			}
		}
		if out := l.lnctl("service", "inspect", "web", "--network", "net"); !strings.Contains(out, "80:8080/sctp  12") {
			t.Errorf("inspect, after 12 associations: %s", out)
		}
		l.must(l.call("back", "web").as("DEL"))
		if got := l.askSCTP("client", v4, 80); !strings.Contains(got, "refused") {
			t.Errorf("without containers: %q, want that it is refused", got)
		}
	})
}

// The same over two hosts, by the address and by published ports that preserve the client's.
func TestMeshSCTP(t *testing.T) {
	t.Parallel()
	m := newMeshOutside(t, 2)
	m.add("h1", "back", "web")
	m.add("h1", "near", "client")
	m.add("h2", "far", "client")
	m.on().serveSCTP("back", netnsPath("back"))
	v4, v6 := m.create("h2", "--port", "80:8080/sctp", "--publish", "8080:80/sctp", "--external", "preserve")
	m.become("at first", "near", v4, "back")
	m.become("at first", "far", v4, "back")
	for _, is6 := range []bool{false, true} {
		vip := pick(is6, v6, v4).String()
		for _, from := range []string{"near", "far"} {
			if got, own := m.on().askSCTP(from, vip, 80), m.own(from, is6).String(); got != "back saw "+own {
				t.Errorf("%s asks at %s: %q, want that it sees %s", from, vip, got, own)
			}
		}
		for _, h := range m.hosts {
			if got, own := m.on().askSCTP("", m.uplink(h, is6), 8080), outsideAddr(is6); got != "back saw "+own {
				t.Errorf("outside asks at %s: %q, want that it sees %s", h, got, own)
			}
		}
	}
}
