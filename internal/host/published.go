package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

const (
	portRange     = "net/ipv4/ip_local_port_range" // for IPv6, too
	reservedPorts = "net/ipv4/ip_local_reserved_ports"
)

// DeviceTo returns the name of the interface by which the host reaches addr:
// "lo" for its own addresses. ErrNotFound if it has no route, or one that
// drops.
func (h *Host) DeviceTo(addr netip.Addr) (string, error) {
	name, err := h.deviceTo(addr.Unmap())
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", addr, err)
	}
	return name, nil
}

func (h *Host) deviceTo(addr netip.Addr) (string, error) {
	if !addr.IsValid() {
		return "", netlink.ErrNotFound
	}
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = uint8(netlink.Family(addr)), uint8(addr.BitLen())
	msg.Table, msg.Scope = 0, 0 // strict checking wants nothing here
	b, err := h.conn.Get(netlink.Request(unix.RTM_GETROUTE, 0, msg, netlink.Attr(unix.RTA_DST, addr.AsSlice())), unix.RTM_NEWROUTE)
	if Unreachable(err) {
		return "", fmt.Errorf("%w: %w", netlink.ErrNotFound, err)
	}
	if err != nil {
		return "", err
	}
	r, unicast, err := netlink.ParseRoute(b)
	if err != nil {
		return "", err
	}
	switch {
	case nl.DeserializeRtMsg(b).Type == unix.RTN_LOCAL:
		r.OIF = netlink.LoIndex // IPv6 names the interface that has the address
	case !unicast:
		return "", netlink.ErrNotFound
	}
	d, err := h.conn.DeviceByIndex(r.OIF)
	if err != nil {
		return "", err
	}
	return d.Name, nil
}

// Unreachable reports whether err is how the kernel answers for a missing
// route, or for one of the kinds unreachable, blackhole and prohibit. A kernel
// without the family reaches nothing of it.
func Unreachable(err error) bool {
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES, netlink.ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// SetRouteLocalnet lets an interface carry packets for and from 127.0.0.0/8, or
// no longer. It reports whether that was a change. Switching it off where the
// interface is missing is success. Guard these addresses first.
func (h *Host) SetRouteLocalnet(dev string, on bool) (changed bool, err error) {
	if err := netlink.CheckName("interface", dev); err != nil {
		return false, err
	}
	path, value := routeLocalnet(dev), "0"
	if on {
		value = "1"
	}
	have, err := h.Sysctls.Get(path)
	if err == nil && have != value {
		changed, err = true, h.Sysctls.Set(path, value)
	}
	if ReadOnly(err) { // netlink sets it as well
		err = h.setNamed(dev, netlink.Setting{Number: netlink.IPv4RouteLocalnet, Value: int(value[0] - '0')})
	}
	switch {
	case err == nil:
		return changed, nil
	case !on && errors.Is(err, netlink.ErrNotFound):
		return false, nil
	}
	return false, err
}

func routeLocalnet(dev string) string { return "net/ipv4/conf/" + dev + "/route_localnet" }

// RouteLocalnet reports what SetRouteLocalnet sets. ErrNotFound: the interface
// is missing.
func (h *Host) RouteLocalnet(dev string) (bool, error) {
	if err := netlink.CheckName("interface", dev); err != nil {
		return false, err
	}
	have, err := h.Sysctls.Get(routeLocalnet(dev))
	return have == "1", err
}

// setNamed changes an IPv4 setting of a link.
func (h *Host) setNamed(name string, s netlink.Setting) error {
	d, err := h.conn.Device(name)
	if err != nil {
		return err
	}
	return h.conn.SetLink(d.Index, 0, 0, netlink.SetIPv4(s))
}

// EphemeralPorts returns the ports of which the kernel takes free ones, and
// whether one of them is reserved for a program.
func (h *Host) EphemeralPorts() (first, last uint16, reserved func(uint16) bool, err error) {
	text, err := h.Sysctls.Get(portRange)
	if err != nil {
		return 0, 0, nil, err
	}
	span, err := parsePorts(strings.Join(strings.Fields(text), "-"))
	if err != nil || len(span) != 1 {
		return 0, 0, nil, fmt.Errorf("sysctl %s: %q is not two ports", portRange, text)
	}
	list, err := h.readReserved()
	if err != nil {
		return 0, 0, nil, err
	}
	apart, err := parsePorts(list)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("sysctl %s: %w", reservedPorts, err)
	}
	return span[0].first, span[0].last, func(p uint16) bool {
		return slices.ContainsFunc(apart, func(s ports) bool { return s.first <= p && p <= s.last })
	}, nil
}

// readReserved reads a list that may be long. The kernel gives it in one read
// or not at all: it fills the buffer, and a second read is at the end.
func (h *Host) readReserved() (string, error) {
	fd, err := h.Sysctls.open(reservedPorts, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	for size := 1 << 10; ; size <<= 2 {
		buf := make([]byte, size)
		n, err := unix.Pread(fd, buf, 0)
		if err != nil {
			return "", fmt.Errorf("read sysctl %s: %w", reservedPorts, err)
		}
		if n < size {
			return strings.TrimSpace(string(buf[:n])), nil
		}
	}
}

// ports are those from first to last.
type ports struct{ first, last uint16 }

// parsePorts reads a list such as "80,8000-8100"; an empty one has no ports.
func parsePorts(list string) ([]ports, error) {
	if list == "" {
		return nil, nil
	}
	var all []ports
	for part := range strings.SplitSeq(list, ",") {
		from, to, span := strings.Cut(part, "-")
		if !span {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || last < first {
			return nil, fmt.Errorf("%q is not a port or a range of them", part)
		}
		all = append(all, ports{uint16(first), uint16(last)})
	}
	return all, nil
}

// PortInUse reports whether a socket of the host holds the port ("tcp", "udp")
// of ip, which may be zero: any address of both families. It finds out by
// binding, so a port that was refused for another reason, such as an address
// the host does not have, is not in use. Other protocols are never in use:
// their module might have to be loaded to ask.
func (h *Host) PortInUse(proto string, ip netip.Addr, port uint16) bool {
	if !ip.IsValid() {
		return h.PortInUse(proto, netip.IPv4Unspecified(), port) || h.PortInUse(proto, netip.IPv6Unspecified(), port)
	}
	kind := unix.SOCK_STREAM
	switch proto {
	case "tcp":
	case "udp":
		kind = unix.SOCK_DGRAM
	default:
		return false
	}
	ip = ip.Unmap()
	fd, err := unix.Socket(netlink.Family(ip), kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if proto == "tcp" { // as servers do: connections that ended a minute ago do not count
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var sa unix.Sockaddr
	if ip.Is4() {
		sa = &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		sa = &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	}
	return errors.Is(unix.Bind(fd, sa), unix.EADDRINUSE)
}
