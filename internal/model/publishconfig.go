package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// PublishConfig is how a Publisher publishes. The zero value is right where
// nothing else is asked for. In brackets: the key of the CNI configuration.
type PublishConfig struct {
	// NoHairpin [snat: false] leaves the container itself, its neighbours and
	// 127.0.0.0/8 out of the clients.
	NoHairpin bool
	// MasqueradeAll [masqAll] gives all clients the host's address as source.
	MasqueradeAll bool
	// Backend [backend]; empty: BackendAuto, which then is the one that the keys
	// below are for.
	Backend Backend
	// ConditionsIPv4 and ConditionsIPv6 [conditionsV4, conditionsV6] are matches
	// that a client must meet, too: words of iptables if the first starts with
	// "-" or "!", else words of nft.
	ConditionsIPv4, ConditionsIPv6 []string
	// MarkMasqBit [markMasqBit] is the bit of the packet mark, 0 to 31, that
	// says to masquerade; nil: 13. BackendNFTables has no use for it.
	MarkMasqBit *int
	// SetMarkChain [externalSetMarkChain] is another program's chain of iptables
	// that marks what is to be masqueraded. Not with MarkMasqBit.
	SetMarkChain string
}

// defaultMarkBit is that of the reference portmap plugin.
const defaultMarkBit = 13

// IPTablesOptions returns what only that backend can do; nil if nothing is asked for.
func (c PublishConfig) IPTablesOptions() *firewall.IPTablesOptions {
	if c.MarkMasqBit == nil && c.SetMarkChain == "" {
		return nil
	}
	o := &firewall.IPTablesOptions{MarkBit: defaultMarkBit, SetMarkChain: c.SetMarkChain}
	if c.MarkMasqBit != nil {
		o.MarkBit = *c.MarkMasqBit
	}
	return o
}

// WordsOf returns the backend whose words conditions are; empty if there are none.
func WordsOf(conditions []string) Backend {
	switch {
	case len(conditions) == 0:
		return ""
	case strings.HasPrefix(conditions[0], "-") || strings.HasPrefix(conditions[0], "!"):
		return BackendIPTables
	}
	return BackendNFTables
}

// Chosen returns the backend that the keys are for, BackendAuto or empty if they
// leave that to the kernel. Words decide before a bit, which nftables may leave
// alone.
func (c PublishConfig) Chosen() Backend {
	words := cmp.Or(WordsOf(c.ConditionsIPv4), WordsOf(c.ConditionsIPv6))
	switch {
	case c.Backend == BackendNFTables || c.Backend == BackendIPTables:
		return c.Backend
	case c.SetMarkChain != "":
		return BackendIPTables
	case words == "" && c.MarkMasqBit != nil:
		return BackendIPTables
	}
	return cmp.Or(words, c.Backend)
}

// JSON is what a record keeps: nothing of the zero value.
func (c PublishConfig) JSON() json.RawMessage {
	if len(c.ConditionsIPv4) == 0 && len(c.ConditionsIPv6) == 0 && c.IPTablesOptions() == nil && !c.NoHairpin && !c.MasqueradeAll {
		return nil
	}
	data, _ := json.Marshal(c) // of bools and strings: never fails
	return data
}

func (c PublishConfig) Validate() error {
	if !slices.Contains([]Backend{"", BackendAuto, BackendNFTables, BackendIPTables}, c.Backend) {
		return BadConfig("backend", fmt.Sprintf("%q", c.Backend), `want "auto", "nftables" or "iptables"`)
	}
	if c.MarkMasqBit != nil && (*c.MarkMasqBit < 0 || *c.MarkMasqBit > 31) {
		return BadConfig("markMasqBit", *c.MarkMasqBit, "want a bit of the mark, 0 to 31")
	}
	if c.MarkMasqBit != nil && c.SetMarkChain != "" {
		return BadConfig("externalSetMarkChain", fmt.Sprintf("%q", c.SetMarkChain), "cannot be together with markMasqBit; remove one of them")
	}
	backend := c.Chosen()
	if backend == BackendNFTables && c.SetMarkChain != "" {
		return BadConfig("externalSetMarkChain", fmt.Sprintf("%q", c.SetMarkChain), "is of iptables, "+otherBackend)
	}
	return errors.Join(wrongConditions("conditionsV4", c.ConditionsIPv4, backend), wrongConditions("conditionsV6", c.ConditionsIPv6, backend))
}

// otherBackend is what is wrong with a key.
const otherBackend = "and another backend is asked for, by backend or by another key"

func wrongConditions(key string, words []string, backend Backend) error {
	of := WordsOf(words)
	if of != "" && of != backend {
		return BadConfig(key, quoted(words), fmt.Sprintf("these are words of %s, %s", of, otherBackend))
	}
	if of != BackendNFTables {
		return nil
	}
	if err := firewall.CheckConditions(words); err != nil {
		return BadConfig(key, quoted(words), err.Error())
	}
	return nil
}

// RefusedConditions names the key of conditions that could not be put in place.
func RefusedConditions(err error) error {
	var refused *firewall.ConditionError
	if !errors.As(err, &refused) {
		return err
	}
	key := "conditionsV4"
	if refused.IPv6 {
		key = "conditionsV6"
	}
	want := refused.Err.Error()
	if !errors.Is(err, firewall.ErrInvalid) {
		want = "nft has to read these words: " + want
	}
	return BadConfig(key, quoted(refused.Words), want)
}

// quoted returns words as a configuration has them.
func quoted(words []string) string {
	data, _ := json.Marshal(words) // of strings: never fails
	return string(data)
}
