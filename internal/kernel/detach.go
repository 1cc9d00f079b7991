package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Ref names an attachment to remove. Owner and HostName are those of its Link.
// NetnsPath and IfName, when both are given, also find a veth that has no
// owner, as the reference bridge plugin makes them; empty skips that.
type Ref struct{ Owner, HostName, NetnsPath, IfName string }

// Detach removes the attachment: the veth called HostName; else the one whose
// other end is IfName in NetnsPath; else the one with Owner as alias, wherever
// it was renamed to. A link that carries the alias of another owner is left
// alone. Missing, also of the namespace, is success.
func (h *Links) Detach(ctx context.Context, r Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := h.find(r)
	if err == nil {
		err = h.conn.deleteLink(d.index)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("detach %s: %w", r.HostName, err)
	}
	return nil
}

// SetDown cuts the attachment that Detach would remove off: what the host's end
// would forward or receive is dropped. Missing is success.
func (h *Links) SetDown(ctx context.Context, r Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := h.find(r)
	if err == nil {
		err = h.conn.setLink(d.index, 0, unix.IFF_UP)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("set %s down: %w", r.HostName, err)
	}
	return nil
}

// find returns the host end of the attachment or ErrNotFound. Only the last
// way, for what is gone or was renamed, looks at all links.
func (h *Links) find(r Ref) (*device, error) {
	if r.HostName != "" {
		d, err := h.conn.device(r.HostName)
		if err == nil && ownedBy(d, r.Owner) {
			return d, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	if r.NetnsPath != "" && r.IfName != "" {
		d, err := h.findPeer(r)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return d, err
		}
	}
	if r.Owner == "" {
		return nil, ErrNotFound
	}
	ds, err := h.conn.devices(0)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		if d.kind == "veth" && d.alias == r.Owner {
			return d, nil
		}
	}
	return nil, ErrNotFound
}

// findPeer returns the host end of the veth that is IfName in NetnsPath, unless it
// is another owner's.
func (h *Links) findPeer(r Ref) (*device, error) {
	host, err := h.hostEnd(r.NetnsPath, r.IfName)
	if err == nil && !ownedBy(host, r.Owner) {
		return nil, ErrNotFound
	}
	return host, err
}

// hostEnd returns the host's end of the veth that is ifName in the namespace at
// path; ErrNotFound if that is no veth, or leads elsewhere.
func (h *Links) hostEnd(path, ifName string) (*device, error) {
	n, err := OpenNetns(path)
	if errors.Is(err, ErrNotNetns) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err) // what was bound there is gone
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	cont, err := deviceIn(n, ifName)
	if err != nil {
		return nil, err
	}
	if cont.kind != "veth" || cont.peer == 0 {
		return nil, ErrNotFound
	}
	host, err := h.conn.deviceByIndex(cont.peer)
	if err != nil {
		return nil, err
	}
	ours, err := h.isPeer(host, cont, n)
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, ErrNotFound
	}
	return host, nil
}

// Owned is a link that carries an alias of ours.
type Owned struct {
	// Owner is the whole alias.
	Owner, Name string
	Index       int
	// Bridge is true for a bridge, false for a veth.
	Bridge bool
}

// List returns the veths and bridges whose alias starts with prefix. Links
// without an alias are never listed.
func (h *Links) List(ctx context.Context, prefix string) ([]Owned, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ds, err := h.conn.devices(0)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var owned []Owned
	for _, d := range ds {
		if d.alias != "" && strings.HasPrefix(d.alias, prefix) && (d.kind == "veth" || d.kind == "bridge") {
			owned = append(owned, Owned{Owner: d.alias, Name: d.name, Index: d.index, Bridge: d.kind == "bridge"})
		}
	}
	return owned, nil
}
