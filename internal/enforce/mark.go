package enforce

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/admit"
)

// mark says to the doctor that policies are to be enforced on this host.
func mark(stateDir string) error {
	path := admit.MarkPath(stateDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}

// Remove takes the rules of policies away, and says whether there were some, or should have been. No
// Enforcer may be at work.
func Remove(ctx context.Context, stateDir string) (was bool, err error) {
	t := admit.New()
	_, there, err := t.Whole(ctx)
	if errors.Is(err, firewall.ErrUnsupported) {
		err = nil
	}
	if err == nil && there {
		err = t.Drop(ctx)
	}
	markErr := os.Remove(admit.MarkPath(stateDir))
	if errors.Is(markErr, os.ErrNotExist) {
		return there, errors.Join(err, t.Close())
	}
	return true, errors.Join(err, markErr, t.Close())
}
