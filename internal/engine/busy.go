package engine

import "github.com/libnet-cni/libnet/internal/flock"

// ErrBusy says that another call for the same attachment takes too long.
var ErrBusy = flock.ErrLocked
