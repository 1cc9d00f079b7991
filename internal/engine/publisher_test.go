package engine

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// A container behind a bridge without hairpin reaches itself by its published
// port, also where br_netfilter has DNAT done inside the bridge.
func TestPublisherHairpin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := context.Background()
	const calls = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if err := os.WriteFile(calls, []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	n := h.network("10.1.0.0/24", WithConfig(model.NetworkConfig{Gateway: true, DefaultGateway: true}))
	e, err := h.web(n, "a")
	if err != nil {
		t.Fatal(err)
	}
	h.publication(e, 8080)
	ns, err := life.OpenNetns(e.Netns())
	if err != nil {
		t.Fatal(err)
	}
	var got string
	err = ns.Do(func() error { got = greets("10.1.0.1:8080"); return nil })
	if err := errors.Join(err, ns.Close()); err != nil || got != "a" {
		t.Errorf("the container by its own port: %q answers, %v", got, err)
	}
	if err := e.Verify(ctx); err != nil {
		t.Errorf("the network's CHECK with the port published: %v", err)
	}
}
