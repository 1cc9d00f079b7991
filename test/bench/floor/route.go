package main

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// skipStats is RTEXT_FILTER_SKIP_STATS.
const skipStats = 1 << 3

// gateway is the number of the bridge's own address.
const gateway = 1

// address is 10.99.0.0 and the number.
func address(number int) []byte { return []byte{10, 99, byte(number >> 8), byte(number)} }

func hostName(number int) string { return fmt.Sprintf("floor-%d", number) }

// route is one rtnetlink socket.
type route struct{ sockets map[int]*nl.SocketHandle }

// openRoute opens it in the namespace, or here for netns.None.
func openRoute(ns netns.NsHandle) (*route, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &route{map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

func (r *route) send(req *nl.NetlinkRequest) error {
	req.Sockets = r.sockets
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// index asks for the index of a link.
func (r *route) index(name string) (int32, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	req.Sockets = r.sockets
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	return nl.DeserializeIfInfomsg(msgs[0]).Index, nil
}

// createVeth makes both ends, the container's in its namespace and the host's
// as a port of the bridge, in one request. Each has one queue: unasked the
// kernel makes one per CPU and then waits to take them back.
func (r *route) createVeth(number, container int, bridge int32) error {
	queues := func(a interface{ AddRtAttr(int, []byte) *nl.RtAttr }) {
		a.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1))
		a.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0"))
	queues(peer)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(container)))

	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(hostName(number))))
	req.AddData(nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)))
	req.AddData(nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	req.AddData(info)
	return r.send(req)
}

func (r *route) up(index int32) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = index, unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	return r.send(req)
}

func (r *route) address(index int32, addr []byte) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Prefixlen, msg.Index = 16, uint32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, addr))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr))
	return r.send(req)
}

func (r *route) defaultRoute(index int32, via []byte) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, via))
	return r.send(req)
}
