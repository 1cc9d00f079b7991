package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// fastLab is a host with a network whose packets may go the fast path.
type fastLab struct {
	*host
	conf string
}

func newFastLab(t *testing.T, more keys) *fastLab {
	t.Helper()
	lntest.NeedsRoot(t, "loads BPF programs")
	l := &fastLab{host: newHost(t)}
	l.conf = edit(t, `{"cniVersion":"1.1.0","type":"bridge-ln","name":"fast","bridge":"br-fast",
		"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.71.0.0/24"}],[{"subnet":"fd71::/64"}]]}}`, more)
	return l
}

// netfilter has rules of IP see the frames of bridges, or not.
func (l *fastLab) netfilter(on string) {
	l.t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		l.check(lntest.Sysctl("bridge/bridge-nf-call-"+name, on))
	}
}

// fastEnd is a container that sends back what comes.
type fastEnd struct {
	container
	mu    sync.Mutex
	texts map[string]int
}

// join attaches a container.
func (l *fastLab) join(name string, more keys) *fastEnd {
	l.t.Helper()
	c := container{netns: l.netns(name)}
	c.call = attachment("bridge-ln", name, c.netns, edit(l.t, l.conf, more))
	out := l.must(c.call.as("ADD")).stdout
	for _, p := range parseResult(l.t, out).addresses(l.t) {
		c.addresses = append(c.addresses, p.Addr())
	}
	c.call.stdin = edit(l.t, c.call.stdin, keys{"prevResult": rawJSON(out)})
	return l.serve(c)
}

func (l *fastLab) serve(c container) *fastEnd {
	l.t.Helper()
	e := &fastEnd{container: c, texts: map[string]int{}}
	var in *net.UDPConn
	l.in(c.netns, func() {
		var err error
		in, err = net.ListenUDP("udp", &net.UDPAddr{Port: flowPort})
		l.check(err)
	})
	l.t.Cleanup(func() { _ = in.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n < len(number(0)) {
				e.mu.Lock()
				e.texts[string(buf[:n])]++
				e.mu.Unlock()
				continue
			}
			_, _ = in.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return e
}

// heard is how often a short text came.
func (e *fastEnd) heard(text string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.texts[text]
}

// fastTalk is one flow of datagrams, and of their answers.
type fastTalk struct {
	t *testing.T
	c *net.UDPConn
	n uint64
}

func (l *fastLab) talk(from *fastEnd, to netip.Addr) *fastTalk {
	l.t.Helper()
	talk := &fastTalk{t: l.t.(*testing.T)}
	l.in(from.netns, func() {
		var err error
		talk.c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, flowPort)))
		l.check(err)
	})
	l.t.Cleanup(func() { _ = talk.c.Close() })
	if _, err := lntest.Exchange(talk.c, number(0), lntest.WaitForAnswer); err != nil { // the first one may be lost on a new link
		l.t.Fatalf("to %s: %v", to, err)
	}
	return talk
}

func (f *fastTalk) port() int { return f.c.LocalAddr().(*net.UDPAddr).Port }

// answered says whether the next number comes back within some time.
func (f *fastTalk) answered(patience time.Duration) bool {
	f.n++
	want, buf := number(f.n), make([]byte, 2000)
	_, err := f.c.Write([]byte(want))
	if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		return false
	}
	_ = f.c.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := f.c.Read(buf)
		if err != nil {
			return false
		}
		if string(buf[:n]) == want {
			return true
		}
	}
}

// whole exchanges so many datagrams, of which none may be lost.
func (f *fastTalk) whole(count int) {
	f.t.Helper()
	for i := range count {
		if !f.answered(lntest.WaitForAnswer) {
			f.t.Fatalf("datagram %d of %d was lost", i, count)
		}
	}
}

// silent sends so many datagrams, of which none may be answered.
func (f *fastTalk) silent(when string, count int) {
	f.t.Helper()
	for i := range count {
		if f.answered(10 * time.Millisecond) {
			f.t.Fatalf("%s: datagram %d is answered", when, i)
		}
	}
}

// goOn exchanges datagrams until what others changed counts, whether they are lost or not.
func (f *fastTalk) goOn() {
	for began := time.Now(); time.Since(began) < 1100*time.Millisecond; {
		f.answered(10 * time.Millisecond)
	}
}

// count has nftables count the frames that bridges forward, and counted says how many there
// were.
func (l *fastLab) count() {
	l.t.Helper()
	l.nft("add table bridge admin; add chain bridge admin forward { type filter hook forward priority 0; }; flush chain bridge admin forward; add rule bridge admin forward meta protocol {ip, ip6} meta l4proto udp counter")
}

func (l *fastLab) counted() int {
	l.t.Helper()
	return l.counter("bridge")
}

// countIn and countedIn are the same for packets that hosts forward.
func (l *fastLab) countIn(hosts ...string) {
	l.t.Helper()
	for _, h := range hosts {
		l.in(netnsPath(h), func() {
			l.nft("add table inet admin; add chain inet admin forward { type filter hook forward priority 0; }; flush chain inet admin forward; add rule inet admin forward meta l4proto udp counter")
		})
	}
}

func (l *fastLab) countedIn(hosts ...string) (n int) {
	l.t.Helper()
	for _, h := range hosts {
		l.in(netnsPath(h), func() { n += l.counter("inet") })
	}
	return n
}

// counter reads the one of table admin, and counterOf that of another.
func (l *fastLab) counter(family string) int { return l.counterOf(family, "admin") }

func (l *fastLab) counterOf(family, table string) int {
	l.t.Helper()
	out, err := exec.Command("nft", "-j", "list", "chain", family, table, "forward").Output()
	l.check(err)
	_, after, _ := bytes.Cut(out, []byte(`"packets": `))
	end := bytes.IndexAny(after, ",}")
	n, err := strconv.Atoi(string(after[:max(end, 0)]))
	l.check(err)
	return n
}

// transfer sends some megabytes by TCP and compares what arrives.
func (l *fastLab) transfer(from, to *fastEnd, addr netip.Addr) error {
	l.t.Helper()
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	var in net.Listener
	var out net.Conn
	l.in(to.netns, func() {
		var err error
		in, err = net.Listen("tcp", fmt.Sprintf(":%d", flowPort))
		l.check(err)
	})
	defer func() { _ = in.Close() }()
	l.in(from.netns, func() {
		var err error
		out, err = lntest.Dial("tcp", netip.AddrPortFrom(addr, flowPort).String(), lntest.WaitForAnswer)
		l.check(err)
	})
	go func() {
		_, _ = out.Write(data)
		_ = out.Close()
	}()
	c, err := in.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * lntest.WaitForAnswer))
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d bytes of %d arrived, or others", len(got), len(data))
	}
	return err
}

// ports are the host's ends of the containers' links.
func (l *fastLab) ports() (names []string) {
	l.t.Helper()
	links, err := netlink.LinkList()
	l.check(err)
	for _, k := range links {
		if k.Type() == "veth" && k.Attrs().MasterIndex > 0 {
			names = append(names, k.Attrs().Name)
		}
	}
	return names
}

func (l *fastLab) setMAC(e *fastEnd, mac string) {
	l.t.Helper()
	l.in(e.netns, func() {
		k, err := netlink.LinkByName("eth0")
		l.check(err)
		to, err := net.ParseMAC(mac)
		l.check(err)
		l.check(netlink.LinkSetHardwareAddr(k, to))
	})
}

// macOf is the MAC address of a container.
func (l *fastLab) macOf(e *fastEnd) (mac net.HardwareAddr) {
	l.t.Helper()
	l.in(e.netns, func() {
		k, err := netlink.LinkByName("eth0")
		l.check(err)
		mac = k.Attrs().HardwareAddr
	})
	return mac
}

// forge returns what has a container send a frame that is as those of another one's flow.
func (l *fastLab) forge(of, by *fastEnd, to netip.Addr, port int) func() {
	l.t.Helper()
	var dst net.HardwareAddr
	l.in(of.netns, func() {
		all, err := netlink.NeighList(0, unix.AF_INET)
		l.check(err)
		for _, n := range all {
			if n.IP.Equal(to.AsSlice()) {
				dst = n.HardwareAddr
			}
		}
	})
	frame := forgedFrame(dst, l.macOf(of), of.addresses[0], to, port)
	var fd, index int
	l.in(by.netns, func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		l.check(err)
		k, err := netlink.LinkByName("eth0")
		l.check(err)
		index = k.Attrs().Index
	})
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	return func() { l.check(unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})) }
}

// forgedFrame is one of a flow, with a datagram that says forged.
func forgedFrame(dst, src net.HardwareAddr, from, to netip.Addr, port int) []byte {
	text := []byte("forged")
	udp := binary.BigEndian.AppendUint16(nil, uint16(port))
	udp = binary.BigEndian.AppendUint16(udp, flowPort)
	udp = append(binary.BigEndian.AppendUint16(udp, uint16(8+len(text))), 0, 0)
	ip := []byte{0x45, 0, 0, byte(20 + 8 + len(text)), 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	frame := append(append(append([]byte{}, dst...), src...), 8, 0)
	return append(append(append(frame, ip...), udp...), text...)
}

// pins are the directories of the fast path.
func pins() ([]string, error) { return filepath.Glob("/sys/fs/bpf/libnet/fast-*") }

func removePins() error {
	dirs, err := pins()
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func unmountPins() error { return unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) }

func (l *fastLab) noPins() {
	l.t.Helper()
	if left, err := pins(); err != nil || len(left) > 0 {
		l.t.Errorf("pins are left: %q, %v", left, err)
	}
}
