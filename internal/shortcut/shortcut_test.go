package shortcut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/bpf"
	"github.com/libnet-cni/libnet/internal/fastpath"
	"github.com/libnet-cni/libnet/internal/lntest"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/state"
)

// broken is the fast path of a kernel that has none, or, if err is nil, one that only notes.
type broken struct {
	err error
	put []int
}

func (b *broken) Put(_ context.Context, l fastpath.Link) error {
	b.put = append(b.put, l.Index)
	return b.err
}
func (b *broken) Remove(context.Context, int) error                    { return nil }
func (b *broken) Verify(context.Context, fastpath.Link) error          { return fastpath.ErrDifferent }
func (b *broken) Sweep(context.Context, func(int) (bool, error)) error { return nil }
func (b *broken) VXLAN(string) (int, int, netlink.VXLAN, error)        { return 9, 2, netlink.VXLAN{}, nil }
func (b *broken) HasLink(int) (bool, error)                            { return true, nil }

// A host whose kernel has no fast path keeps its setting of conntrack.
func TestPutLeavesTheHostAlone(t *testing.T) {
	lntest.Isolate(t)
	path := "/proc/sys/" + liberal
	setting := func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if err := os.WriteFile(path, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := &broken{err: fmt.Errorf("no BPF: %w", bpf.ErrUnsupported)}
	s := &Shortcuts{Path: none, Links: none}
	if err := s.Put(t.Context(), &state.Endpoint{}, 7, "vx-1"); !Unsupported(err) {
		t.Errorf("Put says %v, want %v", err, bpf.ErrUnsupported)
	}
	if got := setting(); got != "0" {
		t.Errorf("a kernel without BPF: the setting is %s, want 0", got)
	}
	if len(none.put) != 1 {
		t.Errorf("links %v were tried, want the attachment's alone", none.put)
	}
	well := &broken{}
	s = &Shortcuts{Path: well, Links: well}
	if err := s.Put(t.Context(), &state.Endpoint{}, 7, "vx-1"); err != nil {
		t.Error(err)
	}
	if got := setting(); got != "1" || len(well.put) != 2 {
		t.Errorf("the setting is %s, want 1; links %v, want two", got, well.put)
	}
	other := errors.New("another error")
	if Unsupported(other) {
		t.Errorf("%v is taken for a lack of the kernel", other)
	}
}
