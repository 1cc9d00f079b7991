package state

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// errBusy says that another one has the lock.
var errBusy error = &sentinel.Error{Text: "busy"}

// TryOwn is Own without waiting, for a caller that looks at attachments of others:
// false if another owns it now, or if there is nothing of the network. Two that
// own one each and wait for the other's would wait for ever.
func (d *Dir) TryOwn(network, containerID, ifName string) (release func(), owned bool, err error) {
	if err := CheckName(network); err != nil {
		return nil, false, err
	}
	if err := unix.Access(d.lockFile(network), unix.F_OK); err != nil {
		return nil, false, nil
	}
	release, err = d.locked(network, OnlyExisting, func(fd int, _ string) error {
		if err := try(flock.Try(fd, unix.LOCK_SH)); err != nil { // see Alone
			return err
		}
		return try(flock.TryByte(fd, attachmentByte(containerID, ifName)))
	})
	if errors.Is(err, errBusy) {
		return nil, false, nil
	}
	return release, err == nil, err
}

// TryRepair keeps all others that ask for it from the state directory until
// release is called; false if another has it, or there is no such directory.
func (d *Dir) TryRepair() (release func(), ok bool, err error) {
	fd, err := unix.Open(d.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: d.root, Err: err}
	}
	if err := try(flock.Try(fd, unix.LOCK_EX)); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, errBusy) {
			err = nil
		}
		return nil, false, err
	}
	return func() { _ = unix.Close(fd) }, true, nil
}

func try(got bool, err error) error {
	if err == nil && !got {
		return errBusy
	}
	return err
}
