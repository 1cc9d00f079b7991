package model

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// ID names one attachment: the interface IfName of the container ContainerID
// in Network. It is the only source of the names of what is made for it, so
// that everything can be traced to its owner, and found by it.
type ID struct {
	Network, ContainerID, IfName string
}

// OwnerPrefix starts the alias of every link of ours.
const OwnerPrefix = "libnet:"

// maxIfName is the longest name of an interface, in bytes (IFNAMSIZ).
const maxIfName = 15

// maxOwner is the longest alias a link can carry, in bytes (IFALIASZ).
const maxOwner = 255

// String is the owner as the kernel carries it: the alias of the host link and
// the comment of firewall elements.
func (id ID) String() string {
	return NetworkOwner(id.Network) + id.ContainerID + "/" + id.IfName
}

// NetworkOwner marks what belongs to a network as a whole, and starts the name
// of every owner in it.
func NetworkOwner(network string) string { return OwnerPrefix + network + "/" }

// ParseNetworkOwner is the inverse of NetworkOwner.
func ParseNetworkOwner(owner string) (network string, ok bool) {
	network, ours := strings.CutPrefix(owner, OwnerPrefix)
	network, whole := strings.CutSuffix(network, "/")
	return network, ours && whole && network != "" && !strings.Contains(network, "/")
}

// ParseOwner is the inverse of ID.String.
func ParseOwner(owner string) (ID, bool) {
	rest, ours := strings.CutPrefix(owner, OwnerPrefix)
	parts := strings.Split(rest, "/")
	if !ours || len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return ID{}, false
	}
	return ID{parts[0], parts[1], parts[2]}, true
}

// PublicationPrefix starts the owners of what a Publisher makes, as ownerPrefix
// those of networks.
const PublicationPrefix = "libnet-portmap:"

func PublicationOwner(id ID) string {
	return PublicationPrefix + strings.TrimPrefix(id.String(), OwnerPrefix)
}

// ParsePublication is the inverse of publicationOwner, but for names that are
// too long for a rule and so are cut.
func ParsePublication(owner string) (ID, bool) {
	rest, ours := strings.CutPrefix(owner, PublicationPrefix)
	id, ok := ParseOwner(OwnerPrefix + rest)
	return id, ours && ok && id.Validate() == nil
}

// HostName is the name of the host end of the attachment's veth: "veth" and 11
// hex digits.
func (id ID) HostName() string {
	return "veth" + Digest(id.String())[:11]
}

// Digest returns 32 hex digits of a hash. It is not a cryptographic one: those
// of the standard library cost every process a millisecond before main.
func Digest(s string) string {
	h := fnv.New128a()
	_, _ = h.Write([]byte(s))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// BridgeName is the name of a network's bridge when the configuration names none.
func BridgeName(network string) string {
	return "ln-" + Digest(NetworkOwner(network))[:12]
}

// Validate says which part of the ID cannot be used; the error is
// ErrInvalidName. The rules are those of the CNI spec 1.1.0, parameters.
func (id ID) Validate() error {
	if err := ValidateName("network name", id.Network); err != nil {
		return err
	}
	if err := ValidateName("container ID", id.ContainerID); err != nil {
		return err
	}
	if err := validateIfName(id.IfName); err != nil {
		return err
	}
	if n := len(id.String()); n > maxOwner {
		return fmt.Errorf("%w: network name (%d bytes) and container ID (%d bytes) are together %d bytes too long",
			ErrInvalidName, len(id.Network), len(id.ContainerID), n-maxOwner)
	}
	return nil
}

func ValidateName(what, name string) error {
	if name == "" {
		return fmt.Errorf("%w: %s is empty", ErrInvalidName, what)
	}
	if len(name) > 200 {
		return fmt.Errorf("%w: %s %.20q… has %d bytes, at most 200 are possible", ErrInvalidName, what, name, len(name))
	}
	if !ValidName(name) {
		return fmt.Errorf("%w: %s %q: want a letter or digit, then letters, digits, '_', '.', '-'", ErrInvalidName, what, name)
	}
	return nil
}

// ValidName says whether name can be that of a network or the ID of a
// container: a letter or digit, then letters, digits, '_', '.', '-', 200 bytes
// at most.
func ValidName(name string) bool {
	for i, r := range name {
		if !isAlnum(r) && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return name != "" && len(name) <= 200
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// ValidIfName says whether name can be that of an interface: 1 to 15 bytes
// without '/', ':', '%' (of which the kernel makes a number) and blanks, not "."
// or "..".
func ValidIfName(name string) bool {
	return name != "" && len(name) <= maxIfName && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r == '%' || r == 0x7f
	})
}

// ValidBridgeName says whether name can be a bridge's: that of an interface but
// lo, and none of those that stand for all interfaces under /proc/sys/net.
func ValidBridgeName(name string) bool {
	return ValidIfName(name) && name != "lo" && name != "all" && name != "default"
}

func validateIfName(name string) error {
	if !ValidIfName(name) {
		return fmt.Errorf("%w: interface name %q: want 1 to 15 bytes without '/', ':', '%%' and blanks, not '.' or '..'", ErrInvalidName, name)
	}
	return nil
}

// NetworkOf returns the network of a link's alias, or of another owner in that
// form; empty: it is none of ours.
func NetworkOf(alias string) string {
	rest, ours := strings.CutPrefix(alias, OwnerPrefix)
	name, _, found := strings.Cut(rest, "/")
	if !ours || !found || !ValidName(name) {
		return ""
	}
	return name
}
