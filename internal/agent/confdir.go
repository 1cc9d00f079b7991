package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/libnet-cni/libnet/internal/plugin"
)

// settle is how long a file that changes may go on doing so.
const settle = 50 * time.Millisecond

// followConf reads the configurations, at once and whenever one changes.
func (a *Agent) followConf(ctx context.Context) error {
	if err := os.MkdirAll(a.conf.ConfDir, 0o755); err != nil { // a runtime may come later
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", a.conf.ConfDir, err)
	}
	defer func() { _ = w.Close() }()
	if err := w.Add(a.conf.ConfDir); err != nil {
		return fmt.Errorf("watch %s: %w", a.conf.ConfDir, err)
	}
	for {
		a.readConf()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
		case err := <-w.Errors: // events were lost: look
			a.log.Warn("watch of configurations", "error", err)
		}
		for quiet := time.After(settle); quiet != nil; {
			select {
			case <-w.Events:
			case <-quiet:
				quiet = nil
			}
		}
	}
}

func (a *Agent) readConf() {
	networks, err := ReadConfDir(a.conf.ConfDir)
	a.mu.Lock()
	before := a.networks
	a.networks, a.confErr = networks, err
	a.mu.Unlock()
	a.say("configurations", err, "configurations that cannot be used", "all configurations can be used")
	if reflect.DeepEqual(before, networks) {
		return
	}
	for _, n := range networks {
		if !slices.ContainsFunc(before, func(b plugin.AgentNetwork) bool { return b.Name == n.Name }) {
			a.log.Info("network", "network", n.Name, "subnets", n.Subnets)
		}
	}
	for _, b := range before {
		if !slices.ContainsFunc(networks, func(n plugin.AgentNetwork) bool { return n.Name == b.Name }) {
			a.log.Warn("network has no configuration any more: it stays as it is; see ln-agent leave", "network", b.Name)
		}
	}
	a.mend.give()
	a.claim.give()
}

// ReadConfDir returns the networks of all files that libcni reads. What cannot
// be used is left out and told in the error.
func ReadConfDir(dir string) ([]plugin.AgentNetwork, error) {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	var all []plugin.AgentNetwork
	file := map[string]string{} // by network
	for _, e := range entries { // in the order of their names
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // gone meanwhile
		}
		var networks []plugin.AgentNetwork
		if err == nil {
			networks, err = plugin.AgentNetworks(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		for _, n := range networks {
			if other, twice := file[n.Name]; twice {
				errs = append(errs, fmt.Errorf("%s: network %s is in %s already", path, n.Name, other))
				continue
			}
			file[n.Name] = path
			all = append(all, n)
		}
	}
	return all, errors.Join(errs...)
}
