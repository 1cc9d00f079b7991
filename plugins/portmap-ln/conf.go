package main

import (
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// conf is the configuration, checked.
type conf struct {
	network  string
	stateDir string
	publish  model.PublishConfig
	ports    []model.PortMapping
}

// parse refuses what it can before anything is changed. Keys it does not know
// it leaves to their vendors.
func parse(call *cni.Call) (*conf, error) {
	o := call.Conf
	c := &conf{network: call.Network, stateDir: call.StateDir()}
	snat := true
	o.Bool("snat", &snat)
	o.Bool("masqAll", &c.publish.MasqueradeAll)
	c.publish.NoHairpin = !snat
	c.publish.MasqueradeAll = c.publish.MasqueradeAll && snat // as with the reference plugin
	c.publish.Backend = cni.Backend(o, "backend")
	readMatches(o, &c.publish)
	var err error
	c.ports, err = call.Ports()
	return c, err
}

// readMatches reads the keys whose values are words of a backend.
func readMatches(o *cni.Object, p *model.PublishConfig) {
	p.ConditionsIPv4, p.ConditionsIPv6 = readConditions(o, "conditionsV4"), readConditions(o, "conditionsV6")
	p.MarkMasqBit = o.OptionalInt("markMasqBit")
	o.String("externalSetMarkChain", &p.SetMarkChain)
	if p.SetMarkChain != "" && !isChain(p.SetMarkChain) {
		o.Refuse("externalSetMarkChain", "the name of a chain, of 1 to 28 bytes without blanks, not starting with '-' or '!'")
	}
}

// isChain says whether a chain of iptables can have this name.
func isChain(name string) bool {
	return len(name) <= 28 && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "!") && isPrintable(name) && !strings.Contains(name, " ")
}

// readConditions returns the words of a match; nil if there are none. Of which
// backend they are libnet says.
func readConditions(o *cni.Object, key string) []string {
	words := o.Strings(key)
	if len(words) == 0 || words[0] == "" {
		return nil
	}
	for _, w := range words {
		if !isPrintable(w) {
			o.Refuse(key, fmt.Sprintf("words without control characters, not %q", w))
		}
	}
	return words
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// loose reads what DEL and GC need and takes defaults for what it cannot read:
// a configuration that was edited after ADD must not keep them from their work.
// The backend is where to look for what no record tells of.
func loose(call *cni.Call) *conf {
	c := &conf{network: call.Network, stateDir: call.LooseStateDir()}
	given := model.PublishConfig{Backend: call.LooseBackend("backend")}
	readMatches(call.Conf, &given)
	c.publish.Backend = given.Chosen()
	return c
}

// withPublisher calls fn with the publisher of the configuration.
func (c *conf) withPublisher(fn func(*engine.Controller, *engine.Publisher) error) error {
	opts := []engine.Option{engine.InOneNamespace()}
	if c.stateDir != "" {
		opts = append(opts, engine.WithStateDir(c.stateDir))
	}
	controller, err := engine.New(opts...)
	if err != nil {
		return err
	}
	// Not closed: the sockets go with the process, which ends now. To close them
	// before could wait for the kernel to free the rules that were deleted.
	p, err := controller.Publisher(c.network, c.publish)
	if err != nil {
		return err
	}
	return fn(controller, p)
}
