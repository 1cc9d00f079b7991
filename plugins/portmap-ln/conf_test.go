package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
)

func call(keys string) *cni.Call {
	if keys != "" {
		keys = "," + keys
	}
	return callOf(`{"cniVersion":"1.1.0","name":"net1"` + keys + `}`)
}

// callOf is a call with this configuration; nil if it is not JSON.
func callOf(stdin string) *cni.Call {
	conf, err := jsonr.Parse([]byte(stdin))
	if err != nil {
		return nil
	}
	return &cni.Call{Version: "1.1.0", Network: "net1", Args: cni.Args{}, Stdin: []byte(stdin), Conf: conf}
}

func TestParse(t *testing.T) {
	bit := 14
	for keys, want := range map[string]model.PublishConfig{
		``: {},
		`"snat":true,"masqAll":false,"conditionsV4":[],"conditionsV6":[""],"externalSetMarkChain":""`: {},
		`"SNAT":false,"masqall":true`:                                       {NoHairpin: true},
		`"masqAll":true`:                                                    {MasqueradeAll: true},
		`"backend":"nftables"`:                                              {Backend: model.BackendNFTables},
		`"backend":"iptables","markMasqBit":14`:                             {Backend: model.BackendIPTables, MarkMasqBit: &bit},
		`"externalSetMarkChain":"KUBE-MARK-MASQ"`:                           {SetMarkChain: "KUBE-MARK-MASQ"},
		`"conditionsV4":["-s","10.0.0.0/8"],"conditionsV6":["!","-i","lo"]`: {ConditionsIPv4: []string{"-s", "10.0.0.0/8"}, ConditionsIPv6: []string{"!", "-i", "lo"}},
		`"conditionsV4":["ip","saddr","10.0.0.0/8"],"markMasqBit":14`:       {ConditionsIPv4: []string{"ip", "saddr", "10.0.0.0/8"}, MarkMasqBit: &bit},
		`"backend":"nftables","markMasqBit":14`:                             {Backend: model.BackendNFTables, MarkMasqBit: &bit},
	} {
		c, err := parse(call(keys))
		if err != nil {
			t.Errorf("%s: %v", keys, err)
			continue
		}
		if diff := cmp.Diff(want, c.Config); diff != "" {
			t.Errorf("%s (-want +got):\n%s", keys, diff)
		}
	}
}

// Every wrong value is named with its key. Which keys exclude each other, libnet
// says.
func TestParseRefuses(t *testing.T) {
	for keys, says := range map[string]string{
		`"backend":"ebtables"`: `backend: "ebtables"`,
		`"snat":"yes"`:         `snat: "yes": want true or false`,
		`"masqAll":1`:          `masqAll: 1`,
		`"markMasqBit":"x"`:    `markMasqBit: "x": want a whole number`,
		`"markMasqBit":32`:     `markMasqBit: 32: want`,
		`"markMasqBit":14,"externalSetMarkChain":"KUBE-MARK-MASQ"`:  `externalSetMarkChain: "KUBE-MARK-MASQ": cannot be together with markMasqBit`,
		`"externalSetMarkChain":"two words"`:                        `externalSetMarkChain: "two words": want the name of a chain`,
		`"externalSetMarkChain":"-j"`:                               `externalSetMarkChain: "-j"`,
		`"externalSetMarkChain":"a-name-that-is-a-little-too-long"`: `externalSetMarkChain: "a-name`,
		`"backend":"nftables","externalSetMarkChain":"X"`:           `externalSetMarkChain: "X": is of iptables`,
		`"backend":"nftables","conditionsV6":["-s","fd00::/8"]`:     `conditionsV6: ["-s","fd00::/8"]: these are words of iptables`,
		`"backend":"iptables","conditionsV4":["ip","saddr","::1"]`:  `conditionsV4: ["ip","saddr","::1"]: these are words of nftables`,
		`"conditionsV4":["-s","::1"],"conditionsV6":["iif","lo"]`:   `conditionsV6: ["iif","lo"]: these are words of nftables`,
		`"conditionsV4":["iif","lo"],"externalSetMarkChain":"X"`:    `conditionsV4: ["iif","lo"]: these are words of nftables`,
		`"conditionsV4":["accept",";","flush","ruleset"]`:           `conditionsV4: ["accept",";","flush","ruleset"]: invalid: ";" has`,
		`"conditionsV4":["ip","saddr","{"]`:                         `conditionsV4: ["ip","saddr","{"]: invalid: a brace is left open`,
		`"conditionsV6":["-m\nCOMMIT"]`:                             `conditionsV6: ["-m\nCOMMIT"]: want words without control characters`,
		`"conditionsV4":"-s 10.0.0.0/8"`:                            `conditionsV4: "-s 10.0.0.0/8": want a list`,
		`"stateDir":7`:                                              `stateDir: 7`,
		`"runtimeConfig":{"portMappings":[{"hostPort":"http"}]}`:    `runtimeConfig.portMappings[0].hostPort: "http"`,
	} {
		c, err := parse(call(keys))
		if err == nil {
			err = c.withPublisher(func(*engine.Controller, *engine.Publisher) error { return nil })
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", keys, err, says)
		}
	}
}

// DEL reads what it can of a configuration that ADD would refuse, and where to
// look for rules that no record tells of.
func TestLoose(t *testing.T) {
	for keys, want := range map[string]netconf.Publish{
		``: {},
		`"stateDir":"/x","snat":7,"runtimeConfig":{"portMappings":5}`: {StateDir: "/x"},
		`"stateDir":[],"backend":"ebtables"`:                          {},
		`"backend":"iptables"`:                                        {Config: model.PublishConfig{Backend: model.BackendIPTables}},
		`"backend":"auto","markMasqBit":99`:                           {Config: model.PublishConfig{Backend: model.BackendIPTables}},
		`"conditionsV6":["!","-i","lo"],"snat":1`:                     {Config: model.PublishConfig{Backend: model.BackendIPTables}},
		`"conditionsV4":["iif","lo","}"],"markMasqBit":1`:             {Config: model.PublishConfig{Backend: model.BackendNFTables}},
		`"conditionsV4":{},"conditionsV6":[5]`:                        {},
		`"backend":"nftables","conditionsV4":["-s"]`:                  {Config: model.PublishConfig{Backend: model.BackendNFTables}},
	} {
		got := loose(call(keys))
		if diff := cmp.Diff(want, got.Publish); diff != "" || got.network != "net1" {
			t.Errorf("%s (-want +got):\n%s", keys, diff)
		}
	}
}

// Whatever ADD refuses, DEL does not.
func FuzzParse(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","name":"n","backend":"iptables","conditionsV4":["-s","10.0.0.0/8"],"markMasqBit":3,"stateDir":"/x"}`)
	f.Add(`{"name":"n","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"sourceRanges":["10.0.0.0/8"]}]}}`)
	f.Fuzz(func(t *testing.T, stdin string) {
		c := callOf(stdin)
		if c == nil {
			return
		}
		if conf, err := parse(c); err == nil && conf == nil {
			t.Error("neither configuration nor error")
		}
		l := loose(c)
		l.StateDir = "" // a fuzzed one must not be opened
		if err := l.withPublisher(func(*engine.Controller, *engine.Publisher) error { return nil }); err != nil {
			t.Errorf("loose: %v", err)
		}
	})
}
