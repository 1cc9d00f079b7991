package cni

import (
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
)

// BlockPool is Pool for subnets that the configuration gives elsewhere than in
// its ipam section, which must give none. Of several of one family each
// container has an address of one.
func (c *Call) BlockPool(blocks []netip.Prefix) (address.IPAM, []netip.Addr, error) {
	ipam := c.Conf.Object("ipam")
	for _, key := range []string{"subnet", "ranges"} {
		if ipam.Raw(key) != nil {
			ipam.Refuse(key, "none: the addresses are those of this host's block")
		}
	}
	if runtime := c.Conf.Object("runtimeConfig"); len(runtime.List("ipRanges")) > 0 {
		runtime.Refuse("ipRanges", "none: the addresses are those of this host's block")
	}
	if err := ipam.Err(); err != nil {
		return nil, nil, err
	}
	return c.pool(ipam, rangeList{sets: address.BlockSets(blocks)})
}

// Prefixes returns a key's prefix, or its list of them; nil if it is missing.
func (o *Object) Prefixes(key string) []netip.Prefix {
	raw := o.Raw(key)
	if raw == nil {
		return nil
	}
	texts := []string{""}
	if isList(raw) {
		texts = o.Strings(key)
	} else {
		o.String(key, &texts[0])
	}
	var all []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			o.Refuse(key, `a prefix without host bits as "10.5.0.0/16", or a list of them`)
			return nil
		}
		all = append(all, p)
	}
	return all
}

// Text returns the item as a string; false if it is none.
func (i Item) Text() (string, bool) { return unquote(i.raw) }

// Refuse keeps the error that the item is not what it should be.
func (i Item) Refuse(want string) { refuseItem(i, want) }
