package firewall

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Recorded reads all elements. What leaves no trace in them is not known: an
// Unprotected policy is Open, an address without rules is missing, so is the
// Bridge of an Endpoint with neither Hairpin nor Masquerade, and under Routed a
// port of the host is the container's. Without our tables there is
// nothing. Its cost grows with what exists.
func (f *Firewall) Recorded(ctx context.Context) (Recorded, error) {
	var r recording
	err := f.do(ctx, func(c *conn) error {
		r = newRecording()
		if _, err := c.generation(); err != nil {
			return err
		}
		for _, family := range tableFamilies {
			for _, s := range tableOf(family).sets {
				elems, err := c.elems(s)
				if err != nil {
					return err
				}
				for _, e := range elems {
					r.read(e)
				}
			}
		}
		marks, err := c.rules(unix.NFPROTO_INET, marksChain)
		for _, m := range marks {
			r.readMark(m.why)
		}
		return err
	})
	if err := absent(err); err != nil {
		return Recorded{}, fmt.Errorf("read rules: %w", err)
	}
	return r.result(), nil
}
