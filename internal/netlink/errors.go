package netlink

import (
	"github.com/libnet-cni/libnet/internal/netns"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Sentinels that this package's errors wrap; test for them with errors.Is.
var (
	// ErrNotFound: the link, the namespace file or the default route is missing.
	ErrNotFound = netns.ErrNotFound
	// ErrExists: the name is taken by something that is not ours.
	ErrExists = netns.ErrExists
	// ErrBridgeFull: the bridge has no free port number.
	ErrBridgeFull error = &sentinel.Error{Text: "no free port"}
	// ErrUnsupported: the kernel lacks a feature; the message names it.
	ErrUnsupported error = &sentinel.Error{Text: "not supported by this kernel"}
)
