package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// OwnAddrs returns the host's addresses of a family and where they are.
func OwnAddrs(c *netlink.Conn, fam int) (map[netip.Addr]int, error) {
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		return netlink.Request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(fam))
	}, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make(map[netip.Addr]int, len(msgs))
	for _, b := range msgs {
		a, index, err := netlink.ParseAddr(b)
		if err != nil {
			return nil, err
		}
		all[a.Prefix.Addr()] = index
	}
	return all, nil
}

// LocalAddrs says which of some addresses are the host's: those of the calling thread's network namespace.
func LocalAddrs(of []netip.Addr) ([]netip.Addr, error) {
	if len(of) == 0 {
		return nil, nil
	}
	c, err := netlink.OpenSmall()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	fam := netlink.Family(of[0])
	if slices.ContainsFunc(of, func(a netip.Addr) bool { return netlink.Family(a) != fam }) {
		fam = unix.AF_UNSPEC
	}
	own, err := OwnAddrs(c, fam)
	var all []netip.Addr
	for _, a := range of {
		if _, ok := own[a]; ok {
			all = append(all, a)
		}
	}
	return all, err
}

// IsLocal says whether an address is the host's: of the calling thread's
// network namespace. It asks by binding a socket, which is much cheaper than
// LocalAddrs; an address that duplicate address detection is not done with is
// none yet.
func IsLocal(a netip.Addr) bool {
	fd, err := unix.Socket(netlink.Family(a), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // it is not known
	}
	defer func() { _ = unix.Close(fd) }()
	return !errors.Is(unix.Bind(fd, Sockaddr(a, 0)), unix.EADDRNOTAVAIL)
}

// Sockaddr is an address and a port for a system call.
func Sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}
