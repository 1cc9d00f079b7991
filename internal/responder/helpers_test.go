package responder

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
)

// loopback is the link that programs under test run on: index 1 in every namespace.
const loopback = 1

// links are filters that keep the program, for Run.
type links struct {
	t       testing.TB
	program int
}

func (l *links) Filter(_, program int, _ netlink.Filter) error {
	if l.program > 0 {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(program), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		l.program = fd
		l.t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return err
}

func (l *links) Filtered(int, netlink.Filter) (bool, error) { return l.program > 0, nil }

// newResponder is one of a namespace and a state directory of its own.
func newResponder(t testing.TB) (*Responder, *links) {
	t.Helper()
	lntest.Isolate(t)
	l := &links{t: t}
	r := New(t.TempDir(), l)
	t.Cleanup(func() {
		dir, err := r.dir()
		if err == nil {
			err = removeDir(dir)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("pins are left: %v", err)
		}
	})
	return r, l
}

func put(t testing.TB, r *Responder, members ...Member) {
	t.Helper()
	for _, m := range members {
		if _, err := r.Put(context.Background(), &m, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// member is a container of a network; link 1 asks.
func member(network, name string, link int, addrs ...string) Member {
	m := Member{Owner: "libnet:" + network + "/" + name + "/eth0", Network: network, Container: name, Domain: "libnet.internal", Names: []string{name}, Link: link}
	for _, a := range addrs {
		m.Addresses = append(m.Addresses, netip.MustParseAddr(a))
	}
	return m
}

func query(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	return q
}

// checksum are how a sender leaves the checksum of UDP.
type checksum int

const (
	whole   checksum = iota
	partial          // to be completed by the device
	none             // IPv4 only
)

var (
	from4, to4 = netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1")
	from6, to6 = netip.MustParseAddr("fd09::2"), netip.MustParseAddr("fd09::1")
)

// packet is a UDP datagram in an Ethernet frame.
func packet(from, to netip.Addr, sport uint16, payload []byte, s checksum) []byte {
	udp := binary.BigEndian.AppendUint16(nil, sport)
	udp = binary.BigEndian.AppendUint16(udp, 53)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(append(udp, 0, 0), payload...)
	pseudo := sum(append(append(from.AsSlice(), to.AsSlice()...), 0, 17, byte(len(udp)>>8), byte(len(udp))))
	switch s {
	case whole:
		x := ^fold(pseudo + sum(udp))
		if x == 0 {
			x = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], x)
	case partial:
		binary.BigEndian.PutUint16(udp[6:], fold(pseudo))
	}
	frame := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	if from.Is4() {
		ip := []byte{0x45, 0, 0, 0, 7, 7, 0x40, 0, 64, 17, 0, 0}
		ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip)))
		return append(append(append(frame, 8, 0), ip...), udp...)
	}
	ip := []byte{0x60, 0, 0, 0, 0, 0, 17, 64}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	return append(append(append(frame, 0x86, 0xdd), ip...), udp...)
}

func sum(b []byte) (s uint32) {
	for i, c := range b {
		s += uint32(c) << (8 * (1 - i%2))
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// The verdicts of the program.
const (
	passed     = -1
	redirected = 7
)

// run has the program look at a packet that came in by the loopback.
func run(t testing.TB, l *links, packet []byte) (verdict int32, out []byte) {
	t.Helper()
	verdict, out, err := bpf.Run(l.program, packet, nil, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return verdict, out
}

// ask sends a query, and returns the answer; nil: it went on, unchanged.
func ask(t testing.TB, l *links, q *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	sent := packet(from4, to4, 4321, b, whole)
	verdict, out := run(t, l, sent)
	if verdict == passed {
		if string(out) != string(sent) {
			t.Fatal("a packet that goes on was changed")
		}
		return nil
	}
	if verdict != redirected {
		t.Fatalf("verdict %d", verdict)
	}
	return checkAnswer(t, sent, out, q)
}

// checkAnswer says what is wrong with a packet as the answer to another.
func checkAnswer(t testing.TB, sent, out []byte, q *dns.Msg) *dns.Msg {
	t.Helper()
	if string(out[:6]) != string(sent[6:12]) || string(out[6:12]) != string(sent[:6]) || string(out[12:14]) != string(sent[12:14]) {
		t.Errorf("Ethernet %x, for %x", out[:14], sent[:14])
	}
	ipLen, addr := 20, 4
	if sent[12] == 0x86 {
		ipLen, addr = 40, 16
	}
	ip, udp := out[14:14+ipLen], out[14+ipLen:]
	was := sent[14 : 14+ipLen]
	at := ipLen - 2*addr
	if string(ip[at:at+addr]) != string(was[at+addr:]) || string(ip[at+addr:]) != string(was[at:at+addr]) {
		t.Errorf("addresses %x, for %x", ip[at:], was[at:])
	}
	wasUDP := sent[14+ipLen:]
	wasUDP = wasUDP[:binary.BigEndian.Uint16(wasUDP[4:])] // behind it may be padding
	if string(udp[:2]) != string(wasUDP[2:4]) || string(udp[2:4]) != string(wasUDP[:2]) || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
		t.Errorf("UDP %x, for %x, of %d bytes", udp[:8], wasUDP[:8], len(udp))
	}
	if addr == 4 && (fold(sum(ip)) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != ipLen+len(udp)) {
		t.Errorf("IP %x", ip)
	}
	if addr == 16 && int(binary.BigEndian.Uint16(ip[4:])) != len(udp) {
		t.Errorf("IP %x", ip)
	}
	checkSum(t, wasUDP, ip[at:], udp)
	var m dns.Msg
	if err := m.Unpack(udp[8:]); err != nil {
		t.Fatalf("answer %x: %v", udp[8:], err)
	}
	if m.Id != q.Id || !m.Response || !m.Authoritative || !m.RecursionAvailable || m.Truncated || m.RecursionDesired != q.RecursionDesired || m.Rcode != 0 {
		t.Errorf("head of the answer: %s", m.MsgHdr.String())
	}
	if len(m.Question) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("question %v, asked was %v", m.Question, q.Question)
	}
	return &m
}

// checkSum compares the checksum of an answer: one that is to be completed stays so. One query of
// 65536 has a checksum that is whole, and as if it were to be completed: the device completes it.
func checkSum(t testing.TB, was, addrs, udp []byte) {
	t.Helper()
	pseudo := func(udp []byte) uint32 { return sum(addrs) + 17 + uint32(len(udp)) }
	partial := func(udp []byte) bool { return binary.BigEndian.Uint16(udp[6:]) == fold(pseudo(udp)) }
	switch {
	case partial(was) && !partial(udp):
		t.Errorf("checksum %x, want the pseudo header's %x", udp[6:8], fold(pseudo(udp)))
	case !partial(was) && fold(pseudo(udp)+sum(udp)) != 0xffff:
		t.Errorf("checksum %x does not fit", udp[6:8])
	}
}
