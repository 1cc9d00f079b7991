package lntest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Options of linux/mroute.h and linux/mroute6.h that golang.org/x/sys/unix lacks.
const (
	mrtInit, mrtAddVIF, mrtAddMFC = 200, 202, 204
	vifUseIndex                   = 8
)

// RouteGroup makes this namespace a multicast router until the test ends: what
// source sends to group by the interface in is forwarded by out.
func RouteGroup(t testing.TB, source, group, in, out string) {
	t.Helper()
	from, to := netip.MustParseAddr(source), netip.MustParseAddr(group)
	family, level, proto := unix.AF_INET, unix.IPPROTO_IP, unix.IPPROTO_IGMP
	if to.Is6() {
		family, level, proto = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatalf("multicast router: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	set := func(opt int, value []byte) {
		if err := unix.SetsockoptString(fd, level, opt, string(value)); err != nil {
			t.Fatalf("multicast router, option %d: %v", opt, err)
		}
	}
	set(mrtInit, host32(1))
	for i, name := range []string{in, out} {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		set(mrtAddVIF, virtualInterface(to.Is6(), uint16(i), dev.Index))
	}
	set(mrtAddMFC, groupRoute(from, to))
}

func host32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func host16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }

// virtualInterface is a struct vifctl or mif6ctl.
func virtualInterface(is6 bool, number uint16, index int) []byte {
	if is6 {
		b := append(host16(number), 0, 1)
		b = append(b, host16(uint16(index))...)
		return append(b, make([]byte, 6)...)
	}
	b := append(host16(number), vifUseIndex, 1)
	b = append(append(b, make([]byte, 4)...), host32(uint32(index))...)
	return append(b, make([]byte, 4)...)
}

// groupRoute is a struct mfcctl or mf6cctl that leads from interface 0 to 1.
func groupRoute(from, to netip.Addr) []byte {
	if to.Is6() {
		var b []byte
		for _, a := range []netip.Addr{from, to} {
			b = append(append(b, host16(unix.AF_INET6)...), make([]byte, 6)...)
			b = append(append(b, a.AsSlice()...), make([]byte, 4)...)
		}
		b = append(b, make([]byte, 4)...) // parent: 0
		return append(append(b, host32(1<<1)...), make([]byte, 28)...)
	}
	b := append(from.AsSlice(), to.AsSlice()...)
	b = append(b, make([]byte, 2+32+2+16)...)
	b[10+1] = 1 // the smallest TTL that interface 1 sends
	return b
}
