// Package server is the side of ln-agent of package diagnostics.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libnet-cni/libnet/internal/diagnostics"
	"github.com/libnet-cni/libnet/internal/graph"
)

// Source is what is served.
type Source struct {
	State func() diagnostics.State
	// Graph looks at the networks of this host with their containers; nil: there is no drawing.
	Graph func(context.Context) ([]graph.Host, error)
}

// Serve answers at a socket that only root reaches, until ctx ends.
func Serve(ctx context.Context, path string, s Source) error {
	l, err := listen(ctx, path)
	if err != nil {
		return fmt.Errorf("diagnostics: %w", err)
	}
	server := &http.Server{Handler: s.handler(), ReadTimeout: 5 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("diagnostics: %w", err)
	}
	return ctx.Err()
}

// listen makes the socket, in a directory that only root enters.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an agent that was killed
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (s Source) handler() http.Handler {
	mux := http.NewServeMux()
	for path, part := range map[string]func(diagnostics.State) any{
		"status":   func(s diagnostics.State) any { return s.Status },
		"networks": func(s diagnostics.State) any { return s.Networks },
		"peers":    func(s diagnostics.State) any { return s.Peers },
		"blocks":   func(s diagnostics.State) any { return s.Blocks },
	} {
		mux.HandleFunc("GET /v1/"+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, part(s.State())) })
	}
	if s.Graph != nil {
		d := &drawing{look: s.Graph}
		mux.HandleFunc("GET /v1/graph", d.serve("application/json", func(hosts []graph.Host) ([]byte, error) { return json.Marshal(hosts) }))
		mux.HandleFunc("GET /graph.svg", d.serve("image/svg+xml", func(hosts []graph.Host) ([]byte, error) { return []byte(graph.Picture(hosts)), nil }))
		mux.HandleFunc("GET /{$}", d.serve("text/html; charset=utf-8", func(hosts []graph.Host) ([]byte, error) { return []byte(graph.LivePage(hosts)), nil }))
	}
	return mux
}

func answer(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "application/json", data)
}

func write(w http.ResponseWriter, kind string, data []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
	_, _ = w.Write(data) // the caller may be gone
}

// drawing looks at the host for all that ask within a moment at once: each container is checked.
type drawing struct {
	look func(context.Context) ([]graph.Host, error)
	mu   sync.Mutex
	at   time.Time
	last []graph.Host
	err  error
}

// moment is how old a drawing may be.
const moment = time.Second

func (d *drawing) hosts(ctx context.Context) ([]graph.Host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) > moment {
		d.last, d.err = d.look(context.WithoutCancel(ctx)) // others wait for it
		d.at = time.Now()
	}
	return d.last, d.err
}

func (d *drawing) serve(kind string, draw func([]graph.Host) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		hosts, err := d.hosts(r.Context())
		if err != nil && len(hosts) > 0 { // part of it can be seen
			w.Header().Set("X-Libnet-Error", fmt.Sprintf("%q", err))
			err = nil
		}
		var data []byte
		if err == nil {
			data, err = draw(hosts)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		write(w, kind, data)
	}
}
