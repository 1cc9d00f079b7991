package netlink

import (
	"errors"

	"github.com/libnet-cni/libnet/internal/netns"
)

// Sentinels that this package's errors wrap; test for them with errors.Is.
var (
	// ErrNotFound: the link, the namespace file or the default route is missing.
	ErrNotFound = netns.ErrNotFound
	// ErrExists: the name is taken by something that is not ours.
	ErrExists = netns.ErrExists
	// ErrBridgeFull: the bridge has no free port number.
	ErrBridgeFull = errors.New("no free port")
	// ErrUnsupported: the kernel lacks a feature; the message names it.
	ErrUnsupported = errors.New("not supported by this kernel")
)
