package firewall

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"strings"
)

// TableName is the name of all our tables in nf_tables.
const TableName = "libnet"

// ChainPrefix begins the names of all our chains in iptables. UserChain is the one whose
// rules are the administrator's.
const (
	ChainPrefix = "LIBNET-"
	UserChain   = ChainPrefix + "USER"
)

// MaxComment is the longest comment that nft takes and prints
// (NFTNL_UDATA_COMMENT_MAXLEN of libnftnl, less the NUL). The kernel keeps
// 256 bytes of user data.
const MaxComment = 127

// hashLen is how many hex digits of a hash stand for the rest of a long owner.
const hashLen = 32

// Key returns the form in which an owner stands in comments and in List: the
// owner itself up to 127 bytes, else its first 94 bytes, "~" and 32 hex digits
// of its FNV-1a hash. Key(Key(s)) is Key(s).
func Key(owner string) string { return Shorten(owner, MaxComment) }

// Shorten puts a hash in the place of what is too long.
func Shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	h := fnv.New128a()
	_, _ = h.Write([]byte(s))
	return fmt.Sprintf("%s~%x", s[:most-1-hashLen], h.Sum(nil))
}

// CheckOwner refuses a name that no comment can hold, as ErrInvalid.
func CheckOwner(owner string) error {
	if owner == "" || strings.ContainsAny(owner, "\x00\"\n") {
		return fmt.Errorf("%q: %w", owner, ErrInvalid)
	}
	return nil
}

// Owners names the owners of endpoints in a message.
func Owners(es []Endpoint) string {
	switch len(es) {
	case 0:
		return "no endpoint"
	case 1:
		return es[0].Owner
	}
	return fmt.Sprintf("%s and %d more", es[0].Owner, len(es)-1)
}

// GuardKey returns the owner of what concerns Bridge alone, in the form of Key.
func (n Network) GuardKey() string { return Key(cmp.Or(n.Guard, n.Name)) }
