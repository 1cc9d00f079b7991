package nft

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// heldRule is a rule as it stands in a chain.
type heldRule struct {
	why    string
	handle uint64
	exprs  []byte
}

// rules returns a chain's rules, in order; a chain that is not there has none.
func (c *conn) rules(family uint8, chain string) ([]heldRule, error) {
	var all []heldRule
	err := c.dump(unix.NFT_MSG_GETRULE, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
	}, func(attrs []byte) error {
		all = append(all, heldRule{
			why:    ruleset.ParseComment(nfnl.Find(attrs, unix.NFTA_RULE_USERDATA)),
			handle: nfnl.Uint64(nfnl.Find(attrs, unix.NFTA_RULE_HANDLE)),
			exprs:  bytes.Clone(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS)),
		})
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return all, err
}

// written returns the rules of our table of a family, by chain, in order.
func (c *conn) written(family uint8) (map[string][]heldRule, error) {
	all := map[string][]heldRule{}
	err := c.dump(unix.NFT_MSG_GETRULE, family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
	}, func(attrs []byte) error {
		chain := nfnl.Text(attrs, unix.NFTA_RULE_CHAIN)
		all[chain] = append(all[chain], heldRule{
			why:   ruleset.ParseComment(nfnl.Find(attrs, unix.NFTA_RULE_USERDATA)),
			exprs: bytes.Clone(nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS)),
		})
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return all, err
}

// contents returns the hash of the rules that a table has, without those of chain
// marks, which it returns, and of the chains of endpoints.
func (c *conn) contents(t ruleset.Table) (sum uint64, marks []heldRule, err error) {
	var all ruleset.Digest
	err = c.dump(unix.NFT_MSG_GETRULE, t.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_RULE_TABLE, firewall.TableName)
	}, func(attrs []byte) error {
		chain := bytes.TrimRight(nfnl.Find(attrs, unix.NFTA_RULE_CHAIN), "\x00")
		why, exprs := nfnl.Find(attrs, unix.NFTA_RULE_USERDATA), nfnl.Find(attrs, unix.NFTA_RULE_EXPRESSIONS)
		switch {
		case string(chain) == ruleset.MarksChain:
			marks = append(marks, heldRule{why: ruleset.ParseComment(why), exprs: bytes.Clone(exprs)})
		case !ruleset.IsGateChain(string(chain)):
			all.Add(chain, why, exprs)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) { // the table went since it was asked for
		return 0, nil, nil
	}
	return all.Finish(), marks, err
}
