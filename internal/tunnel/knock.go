package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// Knock is an ICMP echo request in a frame that goes to another host of the segment, whatever
// the routes of this one say. Its answer may come by any way.
type Knock struct {
	// Device by which it leaves, and the MAC that it is for.
	Device string
	To     MAC
	// From is an address of this host, and For one of the other, of the same family.
	From, For netip.Addr
}

const (
	knockTries = 3
	knockSize  = 8 + echoToken + 4 // header of ICMP, token, number
)

// KnockAll sends every Knock, three times if no answer comes, and waits for all answers together,
// no longer than wait. It says which were answered. It works in the calling thread's network
// namespace and needs CAP_NET_RAW. What it sends and receives passes by netfilter on this host,
// which would take the answers for strays.
func KnockAll(ctx context.Context, all []Knock, wait time.Duration) ([]bool, error) {
	if len(all) == 0 {
		return nil, ctx.Err()
	}
	k := knocks{wanted: all, answered: make([]bool, len(all)), left: len(all)}
	binary.NativeEndian.PutUint64(k.token[:], rand.Uint64())
	if err := k.open(); err != nil {
		return nil, err
	}
	defer k.close()
	end := time.Now().Add(wait)
	for try := range knockTries {
		k.send()
		if err := k.receive(ctx, end.Add(-wait*time.Duration(knockTries-1-try)/knockTries)); err != nil {
			return nil, err
		}
	}
	return k.answered, nil
}

// knocks are those under way.
type knocks struct {
	wanted   []Knock
	answered []bool
	left     int
	token    [echoToken]byte
	out, in  int // sockets
	index    map[string]int
}

// open makes the sockets. Of what the host receives the kernel shows only answers to echo
// requests: a packet socket of all interfaces is woken by nothing else.
func (k *knocks) open() (err error) {
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	k.index = map[string]int{}
	for _, w := range k.wanted {
		if d, err := c.Device(w.Device); err == nil {
			k.index[w.Device] = d.Index
		}
	}
	// Protocol 0: it receives nothing before there is a filter.
	if k.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if k.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return errors.Join(err, unix.Close(k.in))
	}
	filter := echoReplies()
	err = unix.SetsockoptSockFprog(k.in, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		_ = unix.SetsockoptInt(k.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, echoReceive) // or what there is
		err = unix.Bind(k.in, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)})
	}
	if err != nil {
		k.close()
	}
	return err
}

func (k *knocks) close() {
	_, _ = unix.Close(k.in), unix.Close(k.out)
}

// bigEndian is a number as htons(3) has it.
func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// echoReplies lets through ICMP echo replies without IP options, and ICMPv6 ones without
// extension headers.
func echoReplies() []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		finish = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: load, K: 0},                           // 0: version and header length
		{Code: equal, K: 0x45, Jf: 4},                // 1: IPv4 with 20 bytes, or to 6
		{Code: load, K: 9},                           // 2: protocol
		{Code: equal, K: unix.IPPROTO_ICMP, Jf: 8},   // 3: or to 12
		{Code: load, K: 20},                          // 4: type
		{Code: equal, K: 0, Jt: 7, Jf: 6},            // 5: echo reply: to 13, or to 12
		{Code: unix.BPF_ALU | unix.BPF_AND, K: 0xf0}, // 6
		{Code: equal, K: 0x60, Jf: 4},                // 7: IPv6, or to 12
		{Code: load, K: 6},                           // 8: next header
		{Code: equal, K: unix.IPPROTO_ICMPV6, Jf: 2}, // 9: or to 12
		{Code: load, K: 40},                          // 10: type
		{Code: equal, K: 129, Jt: 1},                 // 11: echo reply: to 13
		{Code: finish, K: 0},                         // 12
		{Code: finish, K: 1 << 16},                   // 13
	}
}

func (k *knocks) send() {
	for i, w := range k.wanted {
		index := k.index[w.Device]
		if k.answered[i] || index == 0 {
			continue
		}
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: index, Halen: uint8(len(w.To))}
		if w.For.Is6() {
			to.Protocol = bigEndian(unix.ETH_P_IPV6)
		}
		copy(to.Addr[:], w.To[:])
		_ = unix.Sendto(k.out, k.packet(i), 0, to) // without an answer it is tried again
	}
}

// packet is the IP packet of one of them.
func (k *knocks) packet(i int) []byte {
	w := k.wanted[i]
	icmp := make([]byte, knockSize)
	icmp[0] = 8
	binary.BigEndian.PutUint16(icmp[6:], uint16(i))
	copy(icmp[8:], k.token[:])
	binary.BigEndian.PutUint32(icmp[8+echoToken:], uint32(i))
	if w.For.Is4() {
		binary.BigEndian.PutUint16(icmp[2:], onesComplement(icmp))
		ip := make([]byte, 20, 20+knockSize)
		ip[0], ip[8], ip[9] = 0x45, 1, unix.IPPROTO_ICMP // TTL 1: no router takes it further
		binary.BigEndian.PutUint16(ip[2:], 20+knockSize)
		copy(ip[12:], w.From.AsSlice())
		copy(ip[16:], w.For.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], onesComplement(ip))
		return append(ip, icmp...)
	}
	icmp[0] = 128
	pseudo := append(append(w.From.AsSlice(), w.For.AsSlice()...), 0, 0, 0, knockSize, 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], onesComplement(append(pseudo, icmp...)))
	ip := make([]byte, 8, 40+knockSize)
	ip[0], ip[6], ip[7] = 0x60, unix.IPPROTO_ICMPV6, 1
	binary.BigEndian.PutUint16(ip[4:], knockSize)
	return append(append(append(ip, w.From.AsSlice()...), w.For.AsSlice()...), icmp...)
}

// receive takes answers until all are there, or the time is up.
func (k *knocks) receive(ctx context.Context, until time.Time) error {
	buf := make([]byte, 2048)
	for {
		for {
			n, _, err := unix.Recvfrom(k.in, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			k.take(buf[:n])
		}
		left := time.Until(until)
		if left <= 0 || k.left == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(k.in), Events: unix.POLLIN}}, int((left + time.Millisecond - 1).Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// take reads an echo reply that the filter has let through.
func (k *knocks) take(b []byte) {
	header, from, to := 20, b[12:16], b[16:20]
	if b[0]>>4 == 6 {
		header, from, to = 40, b[8:24], b[24:40]
	}
	if len(b) < header+knockSize || [echoToken]byte(b[header+8:]) != k.token {
		return
	}
	i := int(binary.BigEndian.Uint32(b[header+8+echoToken:]))
	if i >= len(k.wanted) || k.answered[i] {
		return
	}
	w := k.wanted[i]
	if string(from) == string(w.For.AsSlice()) && string(to) == string(w.From.AsSlice()) {
		k.answered[i], k.left = true, k.left-1
	}
}
