package netconf

import (
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// Publish is a configuration of portmap-ln.
type Publish struct {
	StateDir string // empty: libnet's default
	Config   model.PublishConfig
	Ports    []Port
	Log      Log
}

// ReadPublish reads the configuration of portmap-ln, and refuses what it can before anything
// is changed.
func ReadPublish(s Source) (*Publish, error) {
	v := read(s.Conf, table[:])
	p := &Publish{StateDir: readStateDir(v[keyStateDir]), Log: readLog(v[keyLog])}
	v[keyStrict].Bool(new(bool))
	p.Config.NoHairpin, p.Config.MasqueradeAll = readClients(v)
	p.Config.Backend = readBackend(v[keyBackend])
	readMatches(v, &p.Config)
	p.Ports = readPorts(inside(v[keyRuntimeConfig], runtimeTable)[capPortMappings])
	return p, s.Conf.Err()
}

// LoosePublish reads what DEL and GC need of portmap-ln, and takes defaults for what it cannot
// read. The backend is where to look for what no record tells of.
func LoosePublish(s Source) *Publish {
	v := read(s.Conf.Apart(), table[:])
	given := model.PublishConfig{Backend: looseBackend(v[keyBackend])}
	readMatches(v, &given)
	return &Publish{StateDir: looseStateDir(v[keyStateDir]), Log: LooseLog(s.Conf), Config: model.PublishConfig{Backend: given.Chosen()}}
}

// readMatches reads the keys whose values are words of a backend.
func readMatches(v values, p *model.PublishConfig) {
	p.ConditionsIPv4, p.ConditionsIPv6 = readConditions(v[keyConditionsV4]), readConditions(v[keyConditionsV6])
	p.MarkMasqBit = v[keyMarkMasqBit].OptionalInt()
	v[keyExternalSetMarkChain].String(&p.SetMarkChain)
	if p.SetMarkChain != "" && !isChain(p.SetMarkChain) {
		v[keyExternalSetMarkChain].Refuse("the name of a chain, of 1 to 28 bytes without blanks, not starting with '-' or '!'")
	}
}

// isChain says whether a chain of iptables can have this name.
func isChain(name string) bool {
	return len(name) <= 28 && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "!") && isPrintable(name) && !strings.Contains(name, " ")
}

// readConditions returns the words of a match; nil if there are none. Of which backend they
// are model says.
func readConditions(v jsonr.Value) []string {
	words := v.Strings()
	if len(words) == 0 || words[0] == "" {
		return nil
	}
	for _, w := range words {
		if !isPrintable(w) {
			v.Refuse(fmt.Sprintf("words without control characters, not %q", w))
		}
	}
	return words
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
