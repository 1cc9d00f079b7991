package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/diagnostics"
	"github.com/libnet-cni/libnet/internal/graph"
)

// start serves until the test ends.
func start(t *testing.T, s Source) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "overlay", "http.sock")
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // as a killed agent leaves one
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, socket, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(socket); err == nil && info.Mode() == os.ModeSocket|0o600 {
			return socket
		}
		if time.Now().After(until) {
			t.Fatal("no socket that root alone reaches")
		}
	}
}

func state() diagnostics.State {
	return diagnostics.State{
		Status:   diagnostics.Status{Node: "h1", Started: time.Unix(1e9, 0).UTC(), Tasks: []string{"names"}, Problems: []string{"etcd: away"}},
		Networks: []diagnostics.Network{{Name: "n", Subnets: []string{"10.5.0.0/16"}, Blocks: []string{}, Problems: []string{}}},
		Peers:    []diagnostics.Peer{{Network: "n", Node: "h2", Blocks: []string{}}},
		Blocks:   []diagnostics.Block{{Network: "n", Block: "10.5.1.0/24", Node: "h2", Live: true}},
	}
}

// lnctl gets what the agent knows.
func TestGet(t *testing.T) {
	t.Parallel()
	socket := start(t, Source{State: state})
	var got diagnostics.State
	for path, to := range map[string]any{"status": &got.Status, "networks": &got.Networks, "peers": &got.Peers, "blocks": &got.Blocks} {
		if err := diagnostics.Get(t.Context(), socket, "/v1/"+path, to); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(state(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, path := range []string{"/v1/other", "/", "/graph.svg"} { // of an agent that draws nothing
		if err := diagnostics.Get(t.Context(), socket, path, new(any)); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := diagnostics.Get(t.Context(), socket+"x", "/v1/status", new(any)); !errors.Is(err, diagnostics.ErrAway) {
		t.Errorf("%v, want ErrAway", err)
	}
}

func ask(t *testing.T, socket, method, path string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.0\r\n\r\n", method, path); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Nothing can be changed.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	socket := start(t, Source{State: state})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		if got := ask(t, socket, method, "/v1/status"); !strings.Contains(got, " 405 ") {
			t.Errorf("%s: %s", method, got)
		}
	}
}

// The page is drawn of what is there, once for all that ask at a time; it takes the picture anew.
func TestPage(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	socket := start(t, Source{State: state, Graph: func(context.Context) ([]graph.Host, error) {
		looks.Add(1)
		return []graph.Host{{Host: "h1", Networks: []graph.Network{{Name: "shop", Containers: []graph.Container{{ID: "c1"}}}}}}, errors.New("a record\r\ncannot be read")
	}})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if page := ask(t, socket, "GET", "/"); !strings.Contains(page, " 200 ") || !strings.Contains(page, "shop") || !strings.Contains(page, `fetch("graph.svg"`) {
				t.Errorf("%s", page)
			}
		})
	}
	all.Wait()
	if n := looks.Load(); n > 3 {
		t.Errorf("looked %d times for 20 that asked at once", n)
	}
	svg := ask(t, socket, "GET", "/graph.svg")
	if !strings.Contains(svg, "image/svg+xml") || !strings.Contains(svg, "<svg") || !strings.Contains(svg, `X-Libnet-Error: "a record\r\ncannot be read"`) {
		t.Errorf("%s", svg)
	}
	var hosts []graph.Host
	if err := diagnostics.Get(t.Context(), socket, "/v1/graph", &hosts); err != nil || len(hosts) != 1 || hosts[0].Networks[0].Name != "shop" {
		t.Errorf("%v %v", hosts, err)
	}
}
