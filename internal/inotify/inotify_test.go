package inotify

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Errors of the kernel's limits name the limit and what raises it; others stay as they are.
func TestExplain(t *testing.T) {
	t.Parallel()
	for errno, want := range map[unix.Errno]string{
		unix.EMFILE: "sysctl -w fs.inotify.max_user_instances=8192",
		unix.ENOSPC: "sysctl -w fs.inotify.max_user_watches=524288",
	} {
		if err := Explain(fmt.Errorf("watch: %w", errno)); !errors.Is(err, errno) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "all ?") {
			t.Error(err)
		}
	}
	if err := Explain(io.EOF); err != io.EOF { //nolint:errorlint // the same one
		t.Error(err)
	}
}
