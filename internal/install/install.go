package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Plugins are the programs that a runtime starts.
var Plugins = []string{"bridge-ln", "overlay-ln", "ipam-ln", "portmap-ln"}

// Files are what is put where.
type Files struct {
	From    string // directory that has Plugins
	BinDir  string // of the runtime's plugins
	Conf    string // configuration to copy; of one that is to be removed only the name counts
	ConfDir string // of the runtime's configurations
}

// Done is what has changed.
type Done struct {
	Changed []string // paths that were written or removed
	// Hiding are configurations that come before ours by name: runtimes that take the first one only
	// do not take ours.
	Hiding []string
}

const (
	programMode = 0o755
	confMode    = 0o644
)

// Install copies the plugins, and then the configuration: a runtime that sees it can start all that
// it names. Files that are the same already are left alone, so that a runtime has nothing to reload.
func (f Files) Install() (done Done, err error) {
	if err := f.checkConf(); err != nil {
		return done, err
	}
	if err := errors.Join(os.MkdirAll(f.BinDir, programMode), os.MkdirAll(f.ConfDir, programMode)); err != nil {
		return done, err
	}
	for _, name := range Plugins {
		if err := done.put(filepath.Join(f.From, name), filepath.Join(f.BinDir, name), programMode); err != nil {
			return done, err
		}
	}
	if err := done.put(f.Conf, f.target(), confMode); err != nil {
		return done, err
	}
	if err := ignoreMissing(os.Remove(f.Kept())); err != nil {
		return done, err
	}
	done.Hiding, err = f.hiding()
	return done, err
}

// RemoveConf removes the configuration: the runtime starts no more containers on the network. What
// it said stays at Kept until RemovePlugins, for another try: by it the networks are known.
func (f Files) RemoveConf() (done Done, err error) {
	err = os.Rename(f.target(), f.Kept())
	if err == nil {
		done.Changed = append(done.Changed, f.target())
	}
	return done, ignoreMissing(err)
}

// Kept is where the configuration is between RemoveConf and RemovePlugins. No runtime reads a file of
// this name.
func (f Files) Kept() string { return f.target() + ".removed" }

// RemovePlugins removes the plugins. No container may be left that one of them attached.
func (f Files) RemovePlugins() (Done, error) {
	paths := []string{f.Kept()}
	for _, name := range Plugins {
		paths = append(paths, filepath.Join(f.BinDir, name))
	}
	return remove(paths...)
}

func (f Files) target() string { return filepath.Join(f.ConfDir, filepath.Base(f.Conf)) }

// checkConf refuses what no runtime can read.
func (f Files) checkConf() error {
	if !slices.Contains(confEndings, filepath.Ext(f.Conf)) {
		return fmt.Errorf("configuration %s: want a name that ends in .conflist, as runtimes read no other", f.Conf)
	}
	data, err := os.ReadFile(f.Conf)
	if err != nil {
		return err
	}
	if !json.Valid(data) {
		return fmt.Errorf("configuration %s: want JSON", f.Conf)
	}
	return nil
}

// confEndings are those of the files that runtimes read.
var confEndings = []string{".conflist", ".conf", ".json"}

// hiding returns the configurations that come before ours.
func (f Files) hiding() (paths []string, err error) {
	entries, err := os.ReadDir(f.ConfDir)
	for _, e := range entries {
		if slices.Contains(confEndings, filepath.Ext(e.Name())) && strings.Compare(e.Name(), filepath.Base(f.Conf)) < 0 {
			paths = append(paths, filepath.Join(f.ConfDir, e.Name()))
		}
	}
	return paths, err
}

// put copies a file. It is there whole from one moment to the next, by a rename in its own directory:
// runtimes do not hear of a file that comes from another one.
func (d *Done) put(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, data) && hasMode(to, mode) {
		return nil
	}
	temp := filepath.Join(filepath.Dir(to), ".new-"+filepath.Base(to)+".tmp")
	if err := writeNew(temp, data, mode); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	if err := os.Rename(temp, to); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	d.Changed = append(d.Changed, to)
	return nil
}

func hasMode(path string, mode os.FileMode) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == mode
}

// writeNew writes a file that lasts. One that an earlier call was killed over goes first.
func writeNew(path string, data []byte, mode os.FileMode) error {
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, bytes.NewReader(data))
	return errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
}

func remove(paths ...string) (done Done, err error) {
	var errs []error
	for _, path := range paths {
		err := os.Remove(path)
		if err == nil {
			done.Changed = append(done.Changed, path)
		}
		errs = append(errs, ignoreMissing(err))
	}
	return done, errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
