package firewall

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxComment is the longest comment that nft takes and prints
// (NFTNL_UDATA_COMMENT_MAXLEN of libnftnl, less the NUL). The kernel keeps
// 256 bytes of user data.
const maxComment = 127

// hashLen is how many hex digits of a hash stand for the rest of a long owner.
const hashLen = 32

// Key returns the form in which an owner stands in comments and in List: the
// owner itself up to 127 bytes, else its first 94 bytes, "~" and 32 hex digits
// of its FNV-1a hash. Key(Key(s)) is Key(s).
func Key(owner string) string {
	if len(owner) <= maxComment {
		return owner
	}
	h := fnv.New128a()
	_, _ = h.Write([]byte(owner))
	return fmt.Sprintf("%s~%x", owner[:maxComment-1-hashLen], h.Sum(nil))
}

// plan returns the elements that Apply puts in place, each once.
func plan(n Network, e Endpoint) ([]elem, error) {
	ofNetwork, err := n.elems()
	if err != nil {
		return nil, err
	}
	ofEndpoint, err := e.elems()
	if err != nil {
		return nil, err
	}
	return append(ofNetwork, ofEndpoint...), nil
}

func (n Network) elems() ([]elem, error) {
	if !n.Internal && !n.NoICC {
		return nil, nil
	}
	if err := checkOwner(n.Name); err != nil {
		return nil, fmt.Errorf("network name %w", err)
	}
	br, err := ifname(n.Bridge)
	if err != nil {
		return nil, fmt.Errorf("bridge %w", err)
	}
	var all []elem
	owner := Key(n.Name)
	if n.Internal {
		all = append(all, elem{&internal, internal.key(br), owner}, elem{&inside, inside.key(br, br), owner})
	}
	if n.NoICC {
		all = append(all, elem{&noicc, noicc.key(br, br), owner})
	}
	return all, nil
}

func (e Endpoint) elems() ([]elem, error) {
	if !e.Masquerade && e.MAC == nil {
		return nil, nil
	}
	if err := checkOwner(e.Owner); err != nil {
		return nil, fmt.Errorf("owner %w", err)
	}
	var all []elem
	if e.Masquerade {
		masq, err := e.masqElems()
		if err != nil {
			return nil, err
		}
		all = masq
	}
	if e.MAC == nil {
		return all, nil
	}
	mac, err := e.macElems()
	if err != nil {
		return nil, err
	}
	return append(all, mac...), nil
}

func (e Endpoint) masqElems() ([]elem, error) {
	br, err := ifname(e.Bridge)
	if err != nil {
		return nil, fmt.Errorf("bridge %w", err)
	}
	var all []elem
	var seen []netip.Addr
	owner := Key(e.Owner)
	for _, a := range e.Addrs {
		if !a.IsValid() {
			return nil, fmt.Errorf("address %s: %w", a, ErrInvalid)
		}
		a = a.Unmap().WithZone("")
		if slices.Contains(seen, a) {
			continue
		}
		seen = append(seen, a)
		masq, home := &masq4, &home4
		if a.Is6() {
			masq, home = &masq6, &home6
		}
		ip := a.AsSlice()
		all = append(all, elem{masq, masq.key(ip), owner}, elem{home, home.key(ip, br), owner})
	}
	return all, nil
}

// macElems returns one element more if MAC is not nil.
func (e Endpoint) macElems() ([]elem, error) {
	port, err := ifname(e.Port)
	if err != nil {
		return nil, fmt.Errorf("port %w", err)
	}
	all := []elem{{&guarded, guarded.key(port), Key(e.Owner)}}
	if e.MAC == nil {
		return all, nil
	}
	if uint32(len(e.MAC)) != etherSource.size {
		return nil, fmt.Errorf("mac %s: %w", e.MAC, ErrInvalid)
	}
	return append(all, elem{&macs, macs.key(port, e.MAC), Key(e.Owner)}), nil
}

// ifname returns the name's bytes, if an interface can have that name.
func ifname(name string) ([]byte, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \x00\t\n\v\f\r") {
		return nil, fmt.Errorf("%q: %w", name, ErrInvalid)
	}
	return []byte(name), nil
}

func checkOwner(owner string) error {
	if owner == "" || strings.ContainsAny(owner, "\x00\"\n") {
		return fmt.Errorf("%q: %w", owner, ErrInvalid)
	}
	return nil
}
