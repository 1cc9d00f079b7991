package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// PortUser names the owner of the UDP port that a VXLAN device with the address local
// needs; empty: it can have it. VXLAN devices share a port unless one of them
// receives in another way, as one for external control does. Where the port is
// free that costs four system calls. The zero local: a WireGuard device needs it, which
// takes the port of both families and shares it with none.
func (h *Tunnels) PortUser(local netip.Addr, port uint16) (string, error) {
	if !local.IsValid() {
		return h.securePortUser(port)
	}
	if free, err := udpPortFree(local.Is6(), port); free || err != nil {
		return "", err
	}
	all, err := h.conn.Devices(0)
	if err != nil {
		return "", fmt.Errorf("UDP port %d: %w", port, err)
	}
	shared := false
	for _, d := range all {
		switch {
		case d.VXLAN == nil || d.VXLAN.Port != port || !d.Up():
		case d.VXLAN.Apart:
			return "VXLAN device " + d.Name + ", which shares it with none", nil
		default:
			shared = shared || d.VXLAN.Local.Is6() == local.Is6()
		}
	}
	if shared {
		return "", nil
	}
	return udpUser(local.Is6(), port), nil
}

func (h *Tunnels) securePortUser(port uint16) (string, error) {
	taken := false
	for _, is6 := range []bool{false, true} {
		free, err := udpPortFree(is6, port)
		if err != nil {
			return "", err
		}
		taken = taken || !free
	}
	if !taken {
		return "", nil
	}
	all, err := h.conn.Devices(0)
	if err != nil {
		return "", fmt.Errorf("UDP port %d: %w", port, err)
	}
	for _, d := range all {
		if d.VXLAN != nil && d.VXLAN.Port == port && d.Up() {
			return "VXLAN device " + d.Name, nil
		}
		if d.Kind != "wireguard" {
			continue
		}
		if s, err := (wireguard.Device{Name: d.Name}).Read(); err == nil && s.Port == port {
			return "WireGuard device " + d.Name, nil
		}
	}
	return udpUser(false, port), nil
}

func udpPortFree(is6 bool, port uint16) (bool, error) {
	fam, any := unix.AF_INET, netip.IPv4Unspecified()
	if is6 {
		fam, any = unix.AF_INET6, netip.IPv6Unspecified()
	}
	fd, err := unix.Socket(fam, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("UDP port %d: %w", port, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if is6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	err = unix.Bind(fd, host.Sockaddr(any, int(port)))
	if errors.Is(err, unix.EADDRINUSE) {
		return false, nil
	}
	return true, nil // what else may be wrong is not about its owner
}

// udpUser looks for the process that has a port. It reads much of /proc, and is
// for error messages only.
func udpUser(is6 bool, port uint16) string {
	for _, table := range []string{"udp", "udp6"} { // a socket of IPv6 may take both
		data, _ := plain.ReadFile("/proc/thread-self/net/" + table)
		for line := range strings.Lines(string(data)) {
			const inode = 9
			f := strings.Fields(line)
			if len(f) <= inode || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) || table == "udp" && is6 {
				continue
			}
			if f[inode] != "0" {
				return socketOwner(f[inode])
			}
		}
	}
	return "another device or program"
}

func socketOwner(inode string) string {
	all, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range all {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, _ := plain.ReadFile("/proc/" + pid + "/comm")
		if _, err := strconv.Atoi(pid); err == nil {
			return fmt.Sprintf("process %s, %s", pid, strings.TrimSpace(string(name)))
		}
	}
	return "another program"
}
