package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Services lie below the name that they select, so that an ADD finds those of its
// container without reading any other:
//
//	services/<network>/<name selected>/<service>/service.json
//	services/<network>/<name selected>/<service>/backends/<containerID>:<ifname>.json

// ServiceID names a service, and where it lies.
type ServiceID struct{ Network, Select, Name string }

// Service is the directory of a service. Its lock is held until Unlock.
type Service struct {
	ServiceID
	dir string
	fd  int
}

func (d *Dir) servicesDir(network string) string { return filepath.Join(d.root, "services", network) }

func (d *Dir) serviceDir(id ServiceID) (string, error) {
	if err := errors.Join(CheckName(id.Network), CheckName(id.Select), CheckName(id.Name)); err != nil {
		return "", err
	}
	return filepath.Join(d.servicesDir(id.Network), strings.ToLower(id.Select), id.Name), nil
}

// LockService takes the exclusive lock of a service. There being none is ErrNotFound unless
// create is set; then its directory is made. The error is flock.ErrLocked if it takes too
// long.
func (d *Dir) LockService(ctx context.Context, id ServiceID, create Creation) (*Service, error) {
	dir, err := d.serviceDir(id)
	if err != nil {
		return nil, err
	}
	fd, err := lockDir(ctx, dir, unix.LOCK_EX, create)
	if err != nil {
		return nil, err
	}
	return &Service{id, dir, fd}, nil
}

// LockServices takes a lock of all services of a network, shared (unix.LOCK_SH) or exclusive
// (LOCK_EX), after that of one of them. Shared is for what concerns this service alone, or adds
// to it; exclusive for what takes something away unless another service of the network needs
// it. The errors are those of LockService.
func (d *Dir) LockServices(ctx context.Context, network string, how int) (unlock func(), err error) {
	if err := CheckName(network); err != nil {
		return nil, err
	}
	fd, err := lockDir(ctx, d.servicesDir(network), how, OnlyExisting)
	if err != nil {
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, nil
}

// Unlock frees the lock.
func (s *Service) Unlock() { _ = unix.Close(s.fd) }

// Load decodes the definition into v; ErrNotFound if there is none.
func (s *Service) Load(v any) error { return read(s.file(), v) }

// Save writes the definition.
func (s *Service) Save(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(s.file(), data)
}

func (s *Service) file() string { return filepath.Join(s.dir, "service.json") }

func (s *Service) backends() string { return filepath.Join(s.dir, "backends") }

func (s *Service) backendFile(containerID, ifName string) string {
	return filepath.Join(s.backends(), endpointFile(Endpoint{ContainerID: containerID, IfName: ifName}))
}

// PutBackend writes the record of a backend.
func (s *Service) PutBackend(containerID, ifName string, v any) error {
	if err := errors.Join(CheckName(containerID), CheckName(ifName)); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(s.backendFile(containerID, ifName), data)
}

// PeekService reads the definition of a service into v without its lock, and says whether it
// has a backend. There being no such service is ErrNotFound.
func (d *Dir) PeekService(id ServiceID, v any, containerID, ifName string) (has bool, err error) {
	dir, err := d.serviceDir(id)
	if err != nil {
		return false, err
	}
	s := Service{id, dir, -1}
	if err := s.Load(v); err != nil {
		return false, err
	}
	return unix.Access(s.backendFile(containerID, ifName), unix.F_OK) == nil, nil
}

// DeleteBackend removes the record of a backend; missing is success.
func (s *Service) DeleteBackend(containerID, ifName string) error {
	path := s.backendFile(containerID, ifName)
	_ = unix.Unlink(draft(path))
	return remove(path)
}

// ClearBackends removes the records of all backends, as a killed Remove may have left some.
func (s *Service) ClearBackends() error { return os.RemoveAll(s.backends()) }

// HasService says whether a service has a definition.
func (d *Dir) HasService(id ServiceID) bool {
	dir, err := d.serviceDir(id)
	return err == nil && unix.Access((&Service{id, dir, -1}).file(), unix.F_OK) == nil
}

// BackendsOf returns the records of the backends, decoded as T, and what could not be read,
// joined.
func BackendsOf[T any](s *Service) ([]T, error) { return records[T](s.backends()) }

// ReadService reads a service into v, and its backends, without its lock.
func ReadService[T any](d *Dir, id ServiceID, v any) ([]T, error) {
	dir, err := d.serviceDir(id)
	if err != nil {
		return nil, err
	}
	s := Service{id, dir, -1}
	if err := s.Load(v); err != nil {
		return nil, err
	}
	return BackendsOf[T](&s)
}

// Remove removes the service. The lock stays held.
func (s *Service) Remove() error {
	if err := remove(s.file()); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	dir := s.dir
	for range 2 { // of the name, and the network
		dir = filepath.Dir(dir)
		if err := removeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// NoteServices has ServicesNote return something else than before: to be called after a
// change of services that concerns their names. After the last service it removes what is
// left of all.
func (d *Dir) NoteServices() error {
	note := d.servicesNote()
	there, err := d.AnyService()
	if err != nil {
		return err
	}
	if !there {
		_ = unix.Unlink(draft(note))
		if err := remove(note); err != nil {
			return err
		}
		if err := os.Remove(filepath.Dir(note)); err == nil || absent(err) || !errors.Is(err, unix.ENOTEMPTY) {
			return ignoreAbsent(err)
		}
	}
	return replace(note, nil)
}

func ignoreAbsent(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

func (d *Dir) servicesNote() string { return filepath.Join(d.root, "services", "changed") }

// Note tells one state of all services from another one.
type Note struct {
	inode   uint64
	seconds int64
	nanos   int64
}

// ServicesNote returns how services are now, by one look; zero: there are none.
func (d *Dir) ServicesNote() Note {
	var st unix.Stat_t
	if unix.Lstat(d.servicesNote(), &st) != nil {
		return Note{}
	}
	return Note{st.Ino, int64(st.Mtim.Sec), int64(st.Mtim.Nsec)}
}

// HasServices says whether a network may have services, by one look.
func (d *Dir) HasServices(network string) bool {
	return unix.Access(d.servicesDir(network), unix.F_OK) == nil
}
