package netconf

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// source is a configuration with these keys beside the usual ones.
func source(t testing.TB, keys string) Source {
	t.Helper()
	if keys != "" {
		keys = "," + keys
	}
	s, ok := sourceOf(`{"cniVersion":"1.1.0","name":"net1"` + keys + `}`)
	if !ok {
		t.Fatalf("%s: not an object", keys)
	}
	return s
}

// sourceOf is a whole configuration; false if it is no JSON object.
func sourceOf(stdin string) (Source, bool) {
	conf, err := jsonr.Parse([]byte(stdin))
	return Source{Conf: conf, Network: "net1", Args: map[string]string{}}, err == nil
}

// portsOf returns the ports that both kinds of plugins read.
func portsOf(t *testing.T, keys string) ([]Port, error) {
	t.Helper()
	n, err := ReadNetwork(Bridge, source(t, keys))
	p, pErr := ReadPublish(source(t, keys))
	if (err == nil) != (pErr == nil) {
		t.Errorf("%s: bridge-ln %v, portmap-ln %v", keys, err, pErr)
	}
	if err != nil {
		return nil, err
	}
	if diff := cmp.Diff(n.Ports, p.Ports, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("%s (-bridge-ln +portmap-ln):\n%s", keys, diff)
	}
	return n.Ports, nil
}

func TestPorts(t *testing.T) {
	prefixes := func(all ...string) (out []netip.Prefix) {
		for _, p := range all {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	tests := []struct {
		name, mapping string
		want          Port
	}{
		{"all keys", `{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"192.0.2.1","sourceRanges":["10.0.0.0/8","2001:db8::/32"]}`,
			Port{Protocol: "udp", HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 8080, ContainerPort: 80, Sources: prefixes("10.0.0.0/8", "2001:db8::/32")}},
		{"as containerd has it", `{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP","HostIP":""}`,
			Port{Protocol: "tcp", HostPort: 8080, ContainerPort: 80}},
		{"a free port", `{"containerPort":80}`, Port{ContainerPort: 80}},
		{"a range", `{"hostPort":8000,"hostPortEnd":8009,"containerPort":80}`, Port{HostPort: 8000, HostPortEnd: 8009, ContainerPort: 80}},
		{"a range that keeps its numbers", `{"hostPort":8000,"hostPortEnd":8009}`, Port{HostPort: 8000, HostPortEnd: 8009, ContainerPort: 8000}},
		{"a single source", `{"hostPort":1,"containerPort":2,"sourceRanges":["::ffff:10.1.0.5"]}`,
			Port{HostPort: 1, ContainerPort: 2, Sources: prefixes("10.1.0.5/32")}},
		{"any of one family", `{"hostPort":1,"containerPort":2,"hostIP":"::","sourceRanges":[]}`,
			Port{HostPort: 1, ContainerPort: 2, HostIP: netip.IPv6Unspecified()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := portsOf(t, `"runtimeConfig":{"PortMappings":[`+tt.mapping+`]}`)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Port{tt.want}, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, keys := range []string{`"runtimeConfig":{}`, `"runtimeConfig":null`, `"runtimeConfig":{"portMappings":null}`, `"runtimeConfig":{"portMappings":[]}`} {
		if got, err := portsOf(t, keys); err != nil || got != nil {
			t.Errorf("%s: %v, %v", keys, got, err)
		}
	}
}

func TestPortsRefuses(t *testing.T) {
	for mappings, says := range map[string]string{
		`{}`:                                `runtimeConfig.portMappings: {}: want a list`,
		`[5]`:                               `runtimeConfig.portMappings[0]: 5: want an object`,
		`[{"hostPort":1},{"hostPort":"x"}]`: `runtimeConfig.portMappings[1].hostPort: "x": want a whole number`,
		`[{"hostPort":80.5}]`:               `runtimeConfig.portMappings[0].hostPort: 80.5`,
		`[{"hostIP":"host"}]`:               `runtimeConfig.portMappings[0].hostIP: "host"`,
		`[{"hostIP":"fe80::1%eth0"}]`:       `runtimeConfig.portMappings[0].hostIP: "fe80::1%eth0": want an address without a zone`,
		`[{"protocol":6}]`:                  `runtimeConfig.portMappings[0].protocol: 6: want a string`,
		`[{"sourceRanges":"10.0.0.0/8"}]`:   `runtimeConfig.portMappings[0].sourceRanges: "10.0.0.0/8": want a list`,
		`[{"sourceRanges":["10.0.0.1/8"]}]`: `runtimeConfig.portMappings[0].sourceRanges[0]: "10.0.0.1/8"`,
		`[{"sourceRanges":[null]}]`:         `runtimeConfig.portMappings[0].sourceRanges[0]: null`,
	} {
		_, err := portsOf(t, `"runtimeConfig":{"portMappings":`+mappings+`}`)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", mappings, err, says)
		}
	}
}

func TestChoice(t *testing.T) {
	for value, want := range map[string]model.Backend{`null`: "", `""`: "", `"iptables"`: model.BackendIPTables, `"IPTABLES"`: "refused", `"nft"`: "refused", `5`: "refused"} {
		s := source(t, `"Backend":`+value)
		got := readBackend(s.Conf.At("backend"))
		if s.Conf.Err() != nil {
			got = "refused"
		}
		if got != want {
			t.Errorf("%s: %q (%v), want %q", value, got, s.Conf.Err(), want)
		}
	}
}
