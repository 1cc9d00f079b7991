package agent

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// keyStore keeps this host's private keys of a network, a file for each epoch. They are in
// memory only: no disk that is taken out, copied or thrown away has one.
type keyStore struct{ stateDir, network string }

func (s keyStore) dir() string { return filepath.Dir(wireguard.KeyPath(s.stateDir, s.network, 0)) }

// errOnDisk says that keys would be on a disk.
var errOnDisk = errors.New("private keys are kept in memory only")

// open makes the directory, and refuses one on a disk.
func (s keyStore) open() error {
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir(), &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", s.dir(), err)
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%w: %s is on no tmpfs: mount one there, or have stateDir below /run", errOnDisk, s.dir())
	}
	return nil
}

// epochs lists those that there is a key of, the newest first.
func (s keyStore) epochs() ([]int, error) {
	entries, err := os.ReadDir(s.dir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all []int
	for _, e := range entries {
		name, isKey := strings.CutSuffix(e.Name(), ".key")
		of, number, _ := cutLast(name)
		if epoch, err := strconv.Atoi(number); isKey && of == s.network && err == nil {
			all = append(all, epoch)
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all, err
}

// cutLast cuts at the last dot.
func cutLast(name string) (before, after string, found bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// ensure returns the public half of an epoch's key, which it makes unless there is one. One
// that cannot be used is made anew.
func (s keyStore) ensure(epoch int) (public wireguard.Key, err error) {
	path := wireguard.KeyPath(s.stateDir, s.network, epoch)
	if private, err := wireguard.ReadKeyFile(path); err == nil {
		key, err := ecdh.X25519().NewPrivateKey(private[:])
		if err != nil {
			return public, err
		}
		return wireguard.Key(key.PublicKey().Bytes()), nil
	}
	if err := s.open(); err != nil {
		return public, err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return public, err
	}
	text := wireguard.Key(wireguard.Clamp([32]byte(key.Bytes()))).String() + "\n"
	if err := writeNew(path, []byte(text)); err != nil {
		return public, err
	}
	return wireguard.Key(key.PublicKey().Bytes()), nil
}

// writeNew has the file at path, whole, from one moment to the next. Only root reads it from its
// first moment on.
func writeNew(path string, data []byte) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// keep removes the keys of all epochs but these.
func (s keyStore) keep(epochs ...int) error {
	all, err := s.epochs()
	errs := []error{err}
	for _, epoch := range all {
		if !slices.Contains(epochs, epoch) {
			errs = append(errs, os.Remove(wireguard.KeyPath(s.stateDir, s.network, epoch)))
		}
	}
	return errors.Join(errs...)
}
