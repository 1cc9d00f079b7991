package trace

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/netlink"
)

func deviceIn(p *place, name string) (*netlink.Device, error) {
	if name == "" {
		return nil, netlink.ErrNotFound
	}
	return netlink.DeviceIn(p.ns, name)
}

// sysctl is a value of the calling thread's network namespace; empty: it is not there.
func sysctl(path string) string {
	value, _ := host.GetSysctl(path)
	return value
}

// legacyTables are those of iptables-legacy in the calling thread's network namespace.
func legacyTables(is6 bool) []string {
	name := "ip_tables_names"
	if is6 {
		name = "ip6_tables_names"
	}
	data, _ := os.ReadFile("/proc/thread-self/net/" + name)
	return strings.Fields(string(data))
}

// refusalOf tells apart the errors with which the kernel drops what it has no way for.
func refusalOf(err error) unix.Errno {
	for _, e := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, e) {
			return e
		}
	}
	return 0
}
