package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/netns"
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
		err = h.conn.DeleteLink(d.Index)
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("detach %s: %w", r.HostName, err)
	}
	return nil
}

// SetGoing is SetDown for an attachment that DetachAll removes next: the kernel sets all of them
// down at once then, with one wait, and the bridge looks through its ports half as often.
func (h *Links) SetGoing(ctx context.Context, r Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := h.find(r)
	if err == nil {
		err = h.conn.SetLink(d.Index, 0, 0, netlink.AttrUint32(unix.IFLA_GROUP, groupGoing))
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("mark %s: %w", r.HostName, err)
	}
	return nil
}

// DetachAll is Detach for attachments that SetGoing has marked. The kernel waits once for all of
// them, instead of some 15 ms for each.
func (h *Links) DetachAll(ctx context.Context, refs []Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(refs) > 1 {
		// Links of other calls that are cut off go, too, a moment before these remove them.
		err := h.conn.DeleteGroup(groupGoing)
		if err == nil || errors.Is(err, netlink.ErrNotFound) {
			return nil
		}
	}
	var errs []error
	for _, r := range refs {
		errs = append(errs, h.Detach(ctx, r))
	}
	return errors.Join(errs...)
}

// HostIndex is the index of the host's end of the attachment; ErrNotFound without it.
func (h *Links) HostIndex(ctx context.Context, r Ref) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d, err := h.find(r)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", r.HostName, err)
	}
	return d.Index, nil
}

// groupGoing is the group of links that are being removed, "lngo". A call that was killed
// may have left a process that removes the link a moment later: no other call may put it to
// use again.
const groupGoing = 0x6c6e676f

// SetDown cuts the attachment that Detach would remove off: what the host's end
// would forward or receive is dropped. From then on Verify finds it to be going, until
// Detach removes it. Missing is success.
func (h *Links) SetDown(ctx context.Context, r Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := h.find(r)
	if err == nil {
		err = h.conn.SetLink(d.Index, 0, unix.IFF_UP, netlink.AttrUint32(unix.IFLA_GROUP, groupGoing))
	}
	if err != nil && !errors.Is(err, netlink.ErrNotFound) {
		return fmt.Errorf("set %s down: %w", r.HostName, err)
	}
	return nil
}

// find returns the host end of the attachment or ErrNotFound. Only the last
// way, for what is gone or was renamed, looks at all links.
func (h *Links) find(r Ref) (*netlink.Device, error) {
	if r.HostName != "" {
		d, err := h.conn.Device(r.HostName)
		if err == nil && ownedBy(d, r.Owner) {
			return d, nil
		}
		if err != nil && !errors.Is(err, netlink.ErrNotFound) {
			return nil, err
		}
	}
	if r.NetnsPath != "" && r.IfName != "" {
		d, err := h.findPeer(r)
		if err == nil || !errors.Is(err, netlink.ErrNotFound) {
			return d, err
		}
	}
	if r.Owner == "" {
		return nil, netlink.ErrNotFound
	}
	ds, err := h.conn.Devices(0)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		if d.Kind == "veth" && d.Alias == r.Owner {
			return d, nil
		}
	}
	return nil, netlink.ErrNotFound
}

// findPeer returns the host end of the veth that is IfName in NetnsPath, unless it
// is another owner's.
func (h *Links) findPeer(r Ref) (*netlink.Device, error) {
	host, err := h.hostEnd(r.NetnsPath, r.IfName)
	if err == nil && !ownedBy(host, r.Owner) {
		return nil, netlink.ErrNotFound
	}
	return host, err
}

// hostEnd returns the host's end of the veth that is IfName in the namespace at
// path; ErrNotFound if that is no veth, or leads elsewhere.
func (h *Links) hostEnd(path, ifName string) (*netlink.Device, error) {
	n, err := netns.Open(path)
	if errors.Is(err, netns.ErrNotNetns) {
		return nil, fmt.Errorf("%w: %w", netlink.ErrNotFound, err) // what was bound there is gone
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	cont, err := netlink.DeviceIn(n, ifName)
	if err != nil {
		return nil, err
	}
	if cont.Kind != "veth" || cont.Peer == 0 {
		return nil, netlink.ErrNotFound
	}
	host, err := h.conn.DeviceByIndex(cont.Peer)
	if err != nil {
		return nil, err
	}
	ours, err := h.isPeer(host, cont, n)
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, netlink.ErrNotFound
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
	// Master is the bridge of which the link is a port; empty: of none.
	Master string
}

// List returns the veths and bridges whose alias starts with prefix. Links
// without an alias are never listed.
func (h *Links) List(ctx context.Context, prefix string) ([]Owned, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ds, err := h.conn.Devices(0)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string, len(ds))
	for _, d := range ds {
		names[d.Index] = d.Name
	}
	var owned []Owned
	for _, d := range ds {
		if d.Alias != "" && strings.HasPrefix(d.Alias, prefix) && (d.Kind == "veth" || d.Kind == "bridge") {
			owned = append(owned, Owned{Owner: d.Alias, Name: d.Name, Index: d.Index, Bridge: d.Kind == "bridge", Master: names[d.Master]})
		}
	}
	return owned, nil
}

// Bridges is List for bridges alone, whatever number of other links there is.
func (h *Links) Bridges(ctx context.Context, prefix string) ([]Owned, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ds, err := h.conn.DevicesOf("bridge")
	if err != nil {
		return nil, fmt.Errorf("list bridges: %w", err)
	}
	var owned []Owned
	for _, d := range ds {
		if d.Alias != "" && strings.HasPrefix(d.Alias, prefix) {
			owned = append(owned, Owned{Owner: d.Alias, Name: d.Name, Index: d.Index, Bridge: true})
		}
	}
	return owned, nil
}
