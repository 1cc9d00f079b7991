package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
)

// DroppingRule is a policy routing rule that drops what it matches.
type DroppingRule struct {
	IPv6     bool
	Priority int
	// Does is "unreachable", "blackhole" or "prohibit".
	Does string
	// From and To are what it matches; the zero Prefix is all.
	From, To netip.Prefix
}

// String is the rule as ip-rule(8) writes it.
func (r DroppingRule) String() string {
	words := func(p netip.Prefix) string {
		if !p.IsValid() {
			return "all"
		}
		return p.String()
	}
	s := fmt.Sprintf("%d: from %s", r.Priority, words(r.From))
	if r.To.IsValid() {
		s += " to " + words(r.To)
	}
	return s + " " + r.Does
}

// DroppingRules returns the policy routing rules that come before the table main and
// drop what a bridge's containers send, or what is sent to them. Rules that ask for
// more than addresses and this interface are left out.
func (h *Host) DroppingRules(ctx context.Context, dev string, subnets []netip.Prefix) ([]DroppingRule, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []DroppingRule
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msgs, err := h.conn.Dump(func() *nl.NetlinkRequest {
			msg := nl.NewRtDelMsg()
			msg.Family, msg.Table, msg.Scope = fam, 0, 0
			return netlink.Request(unix.RTM_GETRULE, 0, msg)
		}, unix.RTM_NEWRULE)
		if errors.Is(err, netlink.ErrUnsupported) {
			continue // a kernel without policy routing
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, b := range msgs {
			r, drops, err := parseRule(b, dev)
			if err != nil {
				return nil, err
			}
			hit := slices.ContainsFunc(subnets, func(s netip.Prefix) bool {
				return s.Addr().Is6() == r.IPv6 && (!r.From.IsValid() || !r.To.IsValid()) && // what goes between the two is not all
					(r.From.IsValid() && r.From.Overlaps(s) || r.To.IsValid() && r.To.Overlaps(s) || !r.From.IsValid() && !r.To.IsValid())
			})
			if drops && hit {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// mainRule is the priority of the rule that leads to the table main.
const mainRule = 32766

// parseRule returns a rule, and whether it drops whatever it matches and comes before
// the table main.
func parseRule(b []byte, dev string) (r DroppingRule, drops bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return r, false, netlink.ErrShort
	}
	const invert = 2              // FIB_RULE_INVERT
	hdr := nl.DeserializeRtMsg(b) // struct fib_rule_hdr: the action is where a route's type is
	switch hdr.Type {
	case nl.FR_ACT_BLACKHOLE:
		r.Does = "blackhole"
	case nl.FR_ACT_UNREACHABLE:
		r.Does = "unreachable"
	case nl.FR_ACT_PROHIBIT:
		r.Does = "prohibit"
	default:
		return r, false, nil
	}
	r.IPv6, drops = hdr.Family == unix.AF_INET6, hdr.Flags&invert == 0 && hdr.Tos == 0
	err = netlink.EachAttr(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) error {
		switch typ {
		case nl.FRA_SRC, nl.FRA_DST:
			a, _ := netip.AddrFromSlice(v)
			if typ == nl.FRA_SRC {
				r.From = netip.PrefixFrom(a, int(hdr.Src_len))
			} else {
				r.To = netip.PrefixFrom(a, int(hdr.Dst_len))
			}
		case nl.FRA_PRIORITY:
			r.Priority = netlink.Number(v)
		case nl.FRA_IIFNAME, nl.FRA_OIFNAME:
			drops = drops && netlink.Text(v) == dev
		case nl.FRA_TABLE, nl.FRA_PROTOCOL, nl.FRA_SUPPRESS_PREFIXLEN, nl.FRA_SUPPRESS_IFGROUP, fraPad:
		default: // a mark, a user, a port, a tunnel
			drops = false
		}
		return nil
	})
	return r, drops && r.Priority < mainRule, err
}

// fraPad is FRA_PAD (linux/fib_rules.h).
const fraPad = 18
