package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sorting"
)

const (
	// iflaTargetNetnsID and ifaTargetNetnsID ask for a link, or the addresses,
	// of another namespace by its nsid (linux/if_link.h, linux/if_addr.h; kernel
	// 4.17, 4.20).
	iflaTargetNetnsID = 46
	ifaTargetNetnsID  = 10
)

// Found is what the kernel tells of an attachment whose host end is known.
type Found struct {
	Owner, HostName string
	HostMAC         net.HardwareAddr
	HostMTU         int
	// Hairpin and Isolated are the bridge port's flags.
	Hairpin, Isolated bool
	// Bridge is the name of the bridge; empty: the host end is no port. With it
	// come its MAC, MTU, addresses, and whether it is promiscuous.
	Bridge      string
	BridgeMAC   net.HardwareAddr
	BridgeMTU   int
	BridgeAddrs []netip.Prefix
	Promisc     bool
	// IfName, MAC and MTU are the container's interface's, Addrs its addresses
	// without link-local ones, IPv4 before IPv6.
	IfName string
	MAC    net.HardwareAddr
	MTU    int
	Addrs  []netip.Prefix
	// Netns is a path of the container's namespace: where it is bound, else that
	// of a process in it. Empty: neither is to be seen from here.
	Netns string
}

// Namespaces are the paths of network namespaces by the nsid they have here,
// which is given to those that a link of ours leads to.
type Namespaces map[int]string

// Namespaces looks for network namespaces that links of this one lead to: where
// one is bound to a file, and at processes. Each is found once.
func (h *Links) Namespaces() (Namespaces, error) {
	ns := Namespaces{}
	var own unix.Stat_t
	if err := unix.Stat(netns.ThreadPath, &own); err != nil {
		return nil, fmt.Errorf("look at own network namespace: %w", err)
	}
	bound, err := boundNamespaces()
	if err != nil {
		return nil, err
	}
	seen := map[[2]uint64]bool{{own.Dev, own.Ino}: true}
	for _, path := range append(bound, processNamespaces()...) {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || seen[[2]uint64{st.Dev, st.Ino}] {
			continue
		}
		n, err := netns.Open(path)
		if err != nil {
			continue // gone meanwhile, or a file that hides the namespace
		}
		id, err := h.conn.NSID(n)
		if err := errors.Join(err, n.Close()); err != nil {
			return nil, err
		}
		seen[[2]uint64{st.Dev, st.Ino}] = true
		if id >= 0 {
			ns[id] = path
		}
	}
	return ns, nil
}

// boundNamespaces returns where network namespaces are mounted, those first
// that ip-netns(8) and runtimes use.
func boundNamespaces() ([]string, error) {
	const file = "/proc/thread-self/mountinfo"
	data, err := plain.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("look for network namespaces: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line) // proc_pid_mountinfo(5): root and mount point are the fourth and fifth
		if len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			all = append(all, unescape(f[4]))
		}
	}
	usual := func(path string) int {
		if strings.HasPrefix(path, "/run/netns/") || strings.HasPrefix(path, "/var/run/netns/") {
			return 0
		}
		return 1
	}
	sorting.Stable(all, func(a, b string) int { return cmp.Compare(usual(a), usual(b)) })
	return all, nil
}

// unescape reads the octal numbers that stand for blanks and backslashes.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// processNamespaces returns the namespaces of all processes, by number: the
// first in a container tends to be there as long as the container.
func processNamespaces() []string {
	entries, _ := plain.ReadDir("/proc") // what is not to be seen is not found
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	sorting.Ordered(pids)
	var all []string
	for _, pid := range pids {
		all = append(all, fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	return all
}

// Find follows a veth that List gave to its other end. The error wraps
// ErrNotFound if it is not there any more, or its other end is out of reach. It
// needs Linux 4.20.
func (h *Links) Find(ctx context.Context, o Owned, ns Namespaces) (Found, error) {
	if err := ctx.Err(); err != nil {
		return Found{}, err
	}
	f, err := h.followed(o, ns)
	if err != nil {
		return Found{}, fmt.Errorf("find the container of %s (%s): %w", o.Name, o.Owner, err)
	}
	return f, nil
}

func (h *Links) followed(o Owned, ns Namespaces) (Found, error) {
	host, err := h.conn.DeviceByIndex(o.Index)
	if err != nil {
		return Found{}, err
	}
	if host.Alias != o.Owner || host.Kind != "veth" || host.PeerNS < 0 {
		return Found{}, netlink.ErrNotFound
	}
	f := Found{
		Owner: o.Owner, HostName: host.Name, HostMAC: host.MAC, HostMTU: host.MTU, Hairpin: host.Hairpin, Isolated: host.Isolated,
		Netns: ns[host.PeerNS],
	}
	if err := h.addBridge(&f, host.Master); err != nil {
		return Found{}, err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(host.Peer)
	cont, err := h.conn.ReadDevice(msg, netlink.AttrUint32(iflaTargetNetnsID, uint32(host.PeerNS)))
	if err != nil {
		return Found{}, elsewhere(err)
	}
	if cont.Kind != "veth" || cont.Peer != host.Index {
		return Found{}, netlink.ErrNotFound
	}
	f.IfName, f.MAC, f.MTU = cont.Name, cont.MAC, cont.MTU
	f.Addrs, err = addrsElsewhere(h.conn, cont.Index, host.PeerNS)
	return f, elsewhere(err)
}

// elsewhere is ErrNotFound for the kernel's answer that no namespace has the nsid:
// the namespace went after its link was read.
func elsewhere(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", netlink.ErrNotFound, err)
	}
	return err
}

// addBridge adds the bridge of which the host end is a port.
func (h *Links) addBridge(f *Found, master int) error {
	if master == 0 {
		return nil
	}
	br, err := h.conn.DeviceByIndex(master)
	if err != nil {
		return err
	}
	f.Bridge, f.BridgeMAC, f.BridgeMTU, f.Promisc = br.Name, br.MAC, br.MTU, br.Flags&unix.IFF_PROMISC != 0
	as, err := h.conn.Addrs(br.Index, unix.AF_UNSPEC)
	f.BridgeAddrs = given(as)
	return err
}

// addrsElsewhere is addrs for a link of another namespace.
func addrsElsewhere(c *netlink.Conn, index, nsid int) ([]netip.Prefix, error) {
	as, err := c.Addrs(index, unix.AF_UNSPEC, netlink.AttrUint32(ifaTargetNetnsID, uint32(nsid)))
	return given(as), err
}

// given returns the addresses that a program gave the link, not the kernel. Of
// link-local ones, only our gateways are known to be.
func given(as []netlink.Address) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range as {
		if (!a.Prefix.Addr().IsLinkLocalUnicast() || a.Protocol == netlink.ProtoLibnet) && a.Flags&unix.IFA_F_PERMANENT != 0 {
			all = append(all, a.Prefix)
		}
	}
	return all
}

// Holder returns the path of the namespace, out of ns, that has an address.
// ErrNotFound if none has it, or more than one.
func (h *Links) Holder(ctx context.Context, addr netip.Addr, ns Namespaces) (string, error) {
	var holders []string
	for _, path := range ns {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		has, err := HasAddr(path, addr)
		if err != nil && !errors.Is(err, netlink.ErrNotFound) && !errors.Is(err, netns.ErrNotNetns) {
			return "", err
		}
		if has {
			holders = append(holders, path)
		}
	}
	if len(holders) != 1 {
		return "", fmt.Errorf("the namespace that has %s: %w (%d have it)", addr, netlink.ErrNotFound, len(holders))
	}
	return holders[0], nil
}

// HasAddr says whether an interface in the network namespace at path has an
// address.
func HasAddr(path string, addr netip.Addr) (has bool, err error) {
	n, err := netns.Open(path)
	if err != nil {
		return false, err
	}
	err = netlink.Of(n, func(c *netlink.Conn) error {
		msgs, err := c.Dump(func() *nl.NetlinkRequest {
			return netlink.Request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(netlink.Family(addr)))
		}, unix.RTM_NEWADDR)
		for _, b := range msgs {
			a, _, parseErr := netlink.ParseAddr(b)
			has, err = has || a.Prefix.Addr() == addr, errors.Join(err, parseErr)
		}
		return err
	})
	return has, errors.Join(err, n.Close())
}
