package nft

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
)

// Recorded reads all elements. Settings that leave no trace in them are not known: an
// Unprotected policy is Open, an address without rules is missing, so is the Bridge of an
// Endpoint with neither Hairpin nor Masquerade, and under Routed a port of the host is the
// container's. Without our tables there is nothing. Its cost grows with what exists.
func (f *Firewall) Recorded(ctx context.Context) (firewall.Recorded, error) {
	var r ruleset.Recording
	err := f.do(ctx, func(c *conn) error {
		r = ruleset.NewRecording()
		if _, err := transaction.Generation(c.nl); err != nil {
			return err
		}
		for _, family := range ruleset.TableFamilies {
			for _, s := range ruleset.TableOf(family).Sets {
				elems, err := c.elems(s)
				if err != nil {
					return err
				}
				for _, e := range elems {
					r.Read(e)
				}
			}
		}
		marks, err := c.rules(unix.NFPROTO_INET, ruleset.MarksChain)
		for _, m := range marks {
			r.ReadMark(m.why)
		}
		return err
	})
	if err := absent(err); err != nil {
		return firewall.Recorded{}, fmt.Errorf("read rules: %w", err)
	}
	return r.Result(), nil
}
