package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/libnet-cni/libnet/internal/inotify"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// settle is how long a file that changes may go on doing so.
const settle = 50 * time.Millisecond

// followConf reads the configurations, at once and whenever one changes.
func (a *Agent) followConf(ctx context.Context) error {
	first := sync.OnceFunc(func() { close(a.confRead) })
	return followDir(ctx, a.conf.ConfDir, a.log, func() {
		a.readConf()
		first()
	}, func(err error) {
		a.say("watch of configurations", err, unwatched, "configurations are watched")
	})
}

// unwatched is what the log says of configurations that cannot be watched.
const unwatched = "configurations cannot be watched, and are looked at once a second"

// followDir calls look at once, and whenever something of a directory of configurations may have
// changed, until ctx ends. Other programs may have taken all that the kernel lets a user watch:
// then it looks once a second. say hears why, and nil once changes are seen.
func followDir(ctx context.Context, dir string, log *slog.Logger, look func(), say func(error)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { // a runtime may come later
		return err
	}
	for {
		err := watchDir(ctx, dir, log, look, say)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		say(fmt.Errorf("watch %s: %w", dir, inotify.Explain(err)))
		look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(mendAgain):
		}
	}
}

// watchDir is followDir until the directory cannot be watched.
func watchDir(ctx context.Context, dir string, log *slog.Logger, look func(), say func(error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	dirs := watchOf(w, dir)
	for {
		if err := dirs.watch(); err != nil {
			return err
		}
		say(nil)
		look()
		if err := dirs.wait(ctx, log); err != nil {
			return err
		}
	}
}

// confWatch watches directories that may be removed and made anew, as
// installers do.
type confWatch struct {
	*fsnotify.Watcher
	all []*watchedDir
}

// watchOf watches a directory of configurations, and those of what lies below these.
func watchOf(w *fsnotify.Watcher, confDir string) confWatch {
	dirs := confWatch{Watcher: w}
	for _, dir := range append([]string{confDir}, netconf.DirsBelow(netconf.LayersDir)...) {
		dirs.all = append(dirs.all, &watchedDir{path: filepath.Clean(dir)})
	}
	return dirs
}

type watchedDir struct {
	path string
	seen os.FileInfo // as it is watched; nil: it is not there
}

// watch sees to it that the directories that are there now are watched, and those
// above them; while they are missing the nearest one above that is not.
func (w *confWatch) watch() error {
	for _, dir := range w.all {
		if err := w.watchDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (w *confWatch) watchDir(dir *watchedDir) error {
	info, err := os.Stat(dir.path)
	if dir.seen != nil && (err != nil || !os.SameFile(dir.seen, info)) {
		_ = w.Remove(dir.path) // it may be gone by itself
		dir.seen = nil
	}
	for at := dir.path; ; at = filepath.Dir(at) {
		addErr := w.Add(at)
		if at == dir.path && addErr == nil {
			dir.seen, _ = os.Stat(at)
			continue // the one above, too
		}
		if addErr == nil || at == filepath.Dir(at) {
			break
		}
		if !errors.Is(addErr, os.ErrNotExist) {
			return addErr
		}
	}
	if now, err := os.Stat(dir.path); err == nil && (dir.seen == nil || !os.SameFile(dir.seen, now)) {
		return w.watchDir(dir) // it came meanwhile
	}
	return nil
}

// wait returns when something of the directory may have changed, and has been
// quiet then; or after a long time, should an event have been lost.
func (w *confWatch) wait(ctx context.Context, log *slog.Logger) error {
	late := time.NewTimer(rarely)
	defer late.Stop()
	for more := true; more; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-w.Events:
			more = !w.concerns(e.Name)
		case err := <-w.Errors: // events were lost: look
			log.Warn("watch of configurations", "error", err)
			more = false
		case <-late.C:
			return nil
		}
	}
	for quiet := time.After(settle); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
		case <-quiet:
			return nil
		}
	}
}

// concerns says that a path is one of the directories, or one above it, or something in it.
func (w *confWatch) concerns(path string) bool {
	path = filepath.Clean(path)
	return slices.ContainsFunc(w.all, func(dir *watchedDir) bool {
		return filepath.Dir(path) == dir.path || path == dir.path || strings.HasPrefix(dir.path, strings.TrimSuffix(path, "/")+"/")
	})
}

func (a *Agent) readConf() {
	networks, err := ReadConfDir(a.conf.ConfDir)
	a.mu.Lock()
	before := a.networks
	if errors.Is(err, netconf.ErrBelow) { // one file can be below all networks: they go on as they are
		networks = append(networks, without(before, networks)...)
	}
	a.networks, a.confErr = networks, err
	a.mu.Unlock()
	a.say("configurations", err, "configurations that cannot be used", "all configurations can be used")
	if reflect.DeepEqual(before, networks) {
		return
	}
	for _, n := range networks {
		if !slices.ContainsFunc(before, func(b netconf.AgentNetwork) bool { return b.Name == n.Name }) {
			a.log.Info("network", "network", n.Name, "subnets", n.Subnets)
		}
	}
	for _, b := range before {
		if !slices.ContainsFunc(networks, func(n netconf.AgentNetwork) bool { return n.Name == b.Name }) {
			a.forget(b.Name)
			a.log.Warn("network has no configuration any more: it stays as it is; see ln-agent leave", "network", b.Name)
		}
	}
	if a.conf.Names != nil && a.conf.ShareNames {
		var shared []string
		for _, n := range networks {
			shared = append(shared, n.Name)
		}
		a.conf.Names.Share(shared)
	}
	a.keepServices(networks)
	a.mend.give()
	a.claim.give()
	a.secret.give()
	a.direct.give()
}

// without are the networks of all that are not among some, by name.
func without(all, some []netconf.AgentNetwork) []netconf.AgentNetwork {
	return slices.DeleteFunc(slices.Clone(all), func(n netconf.AgentNetwork) bool {
		return slices.ContainsFunc(some, func(s netconf.AgentNetwork) bool { return s.Name == n.Name })
	})
}

// forget has health and metrics know a network no more.
func (a *Agent) forget(network string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.status, network)
	delete(a.segments, network)
	for _, about := range []string{"mend ", "claim ", "spare "} {
		delete(a.said, about+network)
	}
	a.metrics.changes.DeleteLabelValues(network)
	a.metrics.lost.DeleteLabelValues(network)
}

// ReadConfDir returns the networks of all files that libcni reads. Unusable files are left
// out and named in the error.
func ReadConfDir(dir string) ([]netconf.AgentNetwork, error) {
	return readConfFiles(dir, netconf.AgentNetworks, func(n netconf.AgentNetwork) string { return n.Name })
}

// ReadConfFile returns the networks of one file.
func ReadConfFile(path string) ([]netconf.AgentNetwork, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return netconf.AgentNetworks(data)
}

// readConfFiles returns what parse finds in all files that libcni reads, but of each name
// the first.
func readConfFiles[T any](dir string, parse func([]byte) ([]T, error), name func(T) string) ([]T, error) {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	var all []T
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
		var networks []T
		if err == nil {
			networks, err = parse(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		for _, n := range networks {
			if other, twice := file[name(n)]; twice {
				errs = append(errs, fmt.Errorf("%s: network %s is in %s already", path, name(n), other))
				continue
			}
			file[name(n)] = path
			all = append(all, n)
		}
	}
	return all, errors.Join(errs...)
}
