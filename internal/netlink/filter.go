package netlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A link has one qdisc clsact, which tc also calls "ingress".
const (
	clsactHandle  = 0xffff0000
	clsactParent  = 0xfffffff1 // TC_H_CLSACT
	ingressParent = 0xfffffff2 // TC_H_CLSACT with TC_H_MIN_INGRESS
	egressParent  = 0xfffffff3 // TC_H_CLSACT with TC_H_MIN_EGRESS
)

// filterHandle is of the one filter at a preference of ours.
const filterHandle = 1

// Filter is a program of tc at a link. Ours stand at preferences of their own, before filters
// that were given none.
type Filter struct {
	Name       string
	Preference uint16
	// Egress: it looks at what leaves by the link; else at what comes in.
	Egress bool
}

// Filter has a program look at all packets of a link, before its filters of a higher preference.
// One that is there at this preference is replaced. The error wraps ErrUnsupported if the
// kernel lacks clsact or filters by BPF.
func (c *Conn) Filter(index, program int, f Filter) error {
	qdisc := &nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: clsactHandle, Parent: clsactParent}
	req := Request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, qdisc, AttrString(nl.TCA_KIND, "clsact"))
	// An ingress qdisc that is there, as the plugin bandwidth makes it, will do.
	if err := c.Change(req); err != nil && !errors.Is(err, ErrExists) {
		return filterError("qdisc clsact (CONFIG_NET_SCH_INGRESS)", err)
	}
	filter := f.message(index)
	filter.Handle = filterHandle
	req = Request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, filter, AttrString(nl.TCA_KIND, "bpf"),
		Nest(nl.TCA_OPTIONS, AttrUint32(nl.TCA_BPF_FD, uint32(program)), AttrString(nl.TCA_BPF_NAME, f.Name), AttrUint32(nl.TCA_BPF_FLAGS, nl.TCA_BPF_FLAG_ACT_DIRECT)))
	return filterError("filter by BPF (CONFIG_NET_CLS_BPF)", c.Change(req))
}

// message is the head of a message about a filter.
func (f Filter) message(index int) *nl.TcMsg {
	all := uint32(unix.ETH_P_ALL)
	m := &nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(index), Parent: ingressParent,
		Info: uint32(f.Preference)<<16 | all>>8 | all&0xff<<8, // of the protocol in network order
	}
	if f.Egress {
		m.Parent = egressParent
	}
	return m
}

func filterError(of string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP): // no such kind
		return fmt.Errorf("%s: %w: %w", of, ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", of, err)
}

// Filtered says whether a filter is at a link.
func (c *Conn) Filtered(index int, f Filter) (there bool, err error) {
	msgs, err := c.Dump(func() *nl.NetlinkRequest {
		m := f.message(index)
		m.Info = 0
		return Request(unix.RTM_GETTFILTER, 0, m)
	}, unix.RTM_NEWTFILTER)
	if err != nil {
		if err = Translate(err); errors.Is(err, ErrNotFound) || errors.Is(err, unix.EINVAL) { // no link, or no qdisc
			return false, nil
		}
		return false, fmt.Errorf("filters of link %d: %w", index, err)
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofTcMsg {
			continue
		}
		head := nl.DeserializeTcMsg(m)
		if head.Handle != filterHandle || head.Info>>16 != uint32(f.Preference) {
			continue
		}
		err := EachAttr(m[nl.SizeofTcMsg:], func(typ uint16, v []byte) error {
			if typ != nl.TCA_OPTIONS {
				return nil
			}
			return EachAttr(v, func(typ uint16, v []byte) error {
				there = there || typ == nl.TCA_BPF_NAME && Text(v) == f.Name
				return nil
			})
		})
		if err != nil || there {
			return there, err
		}
	}
	return false, nil
}
