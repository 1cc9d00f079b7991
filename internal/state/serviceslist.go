package state

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sorting"
)

// ServicesFor returns the services of a network that select one of these names.
func (d *Dir) ServicesFor(network string, names []string) ([]ServiceID, error) {
	var all []ServiceID
	for _, name := range names {
		if CheckName(name) != nil {
			continue
		}
		ids, err := d.servicesBelow(network, strings.ToLower(name))
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

func (d *Dir) servicesBelow(network, selected string) ([]ServiceID, error) {
	entries, err := namesOf(filepath.Join(d.servicesDir(network), selected))
	var all []ServiceID
	for _, name := range entries {
		all = append(all, ServiceID{network, selected, name})
	}
	return all, err
}

// Services returns all services of all networks, in order.
func (d *Dir) Services() ([]ServiceID, error) {
	networks, err := namesOf(filepath.Join(d.root, "services"))
	errs := []error{err}
	var all []ServiceID
	for _, n := range networks {
		of, err := d.ServicesOf(n)
		all, errs = append(all, of...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// AnyService says whether there is a service, of whatever network. Its cost does not grow with
// their number.
func (d *Dir) AnyService() (there bool, err error) {
	err = d.EachService(func(ServiceID) bool { there = true; return false })
	return there, err
}

// EachService calls fn for the services of all networks, in no order, until it wants no more.
func (d *Dir) EachService(fn func(ServiceID) (more bool)) error {
	root := filepath.Join(d.root, "services")
	_, err := eachName(root, func(network string) (bool, error) {
		return eachName(filepath.Join(root, network), func(selected string) (bool, error) {
			return eachName(filepath.Join(root, network, selected), func(name string) (bool, error) {
				return fn(ServiceID{network, selected, name}), nil
			})
		})
	})
	return err
}

// eachName calls fn for the directories in one, in no order, until it wants no more; a missing
// one is empty.
func eachName(dir string, fn func(name string) (more bool, err error)) (more bool, err error) {
	f, err := plain.Open(dir)
	if absent(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	const portion = 64
	for {
		entries, err := f.ReadDir(portion)
		for _, e := range entries {
			if e.Type() != fs.ModeDir {
				continue
			}
			if more, err := fn(e.Name()); !more || err != nil {
				return false, err
			}
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// ServicesOf returns all services of a network, in order.
func (d *Dir) ServicesOf(network string) ([]ServiceID, error) {
	selected, err := namesOf(d.servicesDir(network))
	errs := []error{err}
	var all []ServiceID
	for _, s := range selected {
		of, err := d.servicesBelow(network, s)
		all, errs = append(all, of...), append(errs, err)
	}
	sorting.Stable(all, func(a, b ServiceID) int { return strings.Compare(a.Name, b.Name) })
	return all, errors.Join(errs...)
}

// namesOf lists a directory; a missing one is empty.
func namesOf(dir string) ([]string, error) {
	entries, err := plain.ReadDir(dir)
	if absent(err) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		if e.Type() == fs.ModeDir {
			all = append(all, e.Name())
		}
	}
	sorting.Ordered(all)
	return all, err
}
