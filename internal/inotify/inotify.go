// Package inotify says what the limits of inotify(7) mean for an operator.
package inotify

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
)

// Explain adds to an error of inotify which limit of the kernel was met, and how to raise it.
// Any other error it returns as it is.
//
// Both limits are of a user, not of a process: other programs may have used them up.
func Explain(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE): // inotify_init1(2)
		return limit(err, "max_user_instances", "instances", 8192)
	case errors.Is(err, unix.ENOSPC): // inotify_add_watch(2)
		return limit(err, "max_user_watches", "watches", 524288)
	}
	return err
}

func limit(err error, key, of string, better int) error {
	now := "?"
	if data, readErr := plain.ReadFile("/proc/sys/fs/inotify/" + key); readErr == nil {
		now = strings.TrimSpace(string(data))
	}
	return fmt.Errorf("%w: the programs of this user have all %s inotify %s that the kernel gives a user; raise it, as by sysctl -w fs.inotify.%s=%d", err, now, of, key, better)
}
