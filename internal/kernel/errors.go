package kernel

import "errors"

// Sentinels that this package's errors wrap; test for them with errors.Is.
var (
	// ErrNotFound: the link, the namespace file or the default route is missing.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken by something that is not ours.
	ErrExists = errors.New("already exists")
	// ErrNotBridge: a link of the bridge's name is of another kind.
	ErrNotBridge = errors.New("not a bridge")
	// ErrNotNetns: the file is not a network namespace.
	ErrNotNetns = errors.New("not a network namespace")
	// ErrBridgeFull: the bridge has no free port number.
	ErrBridgeFull = errors.New("no free port")
	// ErrAddressConflict: the bridge holds an address that excludes the wanted one.
	ErrAddressConflict = errors.New("address conflict")
	// ErrUnsupported: the kernel lacks a feature; the message names it.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrReadOnly: a setting of the kernel is not what it has to be, and cannot
	// be changed; the message names it.
	ErrReadOnly = errors.New("not writable")
	// ErrDifferent: the kernel has something else than was asked for. An error
	// of a Verify that wraps neither it nor ErrNotFound nor ErrNotBridge says that
	// it could not look.
	ErrDifferent = errors.New("different")
	// ErrInUse: the bridge still has ports.
	ErrInUse = errors.New("in use")
)
