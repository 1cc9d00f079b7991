package netconf

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/jsonr"
)

// found is what Unknown finds, in a line.
func found(t *testing.T, p Plugin, keys string) string {
	t.Helper()
	var all []string
	for _, f := range Unknown(source(t, keys).Conf, p) {
		all = append(all, f.String())
	}
	return strings.Join(all, "; ")
}

func TestUnknown(t *testing.T) {
	const pool = `"ipam":{"type":"ipam-ln",`
	for _, tt := range []struct {
		of         Plugin
		keys, want string
	}{
		{networks, `"gatewaymod":"nat"`, "gatewaymod is no key of P, but gatewayMode is"},
		{networks, `"gateway_mode":"nat"`, "gateway_mode is no key of P, but gatewayMode is"},
		{networks, `"gatewayModes":"nat"`, "gatewayModes is no key of P, but gatewayMode is"},
		{networks, `"gatwayMode":"nat","x":1`, "gatwayMode is no key of P, but gatewayMode is"},
		{networks, `"gatewayMode":{"ipv4":"nat","ivp6":"routed"}`, "gatewayMode.ivp6 is no key of P, but gatewayMode.ipv6 is"},
		{networks, `"gatewayMode":{"ipv4":"nat","v6":"routed"}`, ""},
		{networks, `"internl":true,"ic":false`, "internl is no key of P, but internal is; ic is no key of P, but icc is"},
		{networks, `"hairpin":true`, "hairpin is no key of P, but hairpinMode is"},
		{networks, `"isgateway":true,"IPMASQ":false,"Mtu":1400`, ""},
		{networks, `"ipmasque":true`, "ipmasque is no key of P, but ipMasq is"},
		{networks, `"mtu":1,"mtu":2`, "mtu is there twice, if only in another case: the one spelt mtu counts, else the last"},
		{networks, `"gatewayMode":"isolated","GatewayMode":"nat"`, "GatewayMode is there twice, if only in another case: the one spelt gatewayMode counts, else the last"},
		{networks, `"strct":true`, "strct is no key of P, but strict is"},
		{networks, `"dns":{"nameserver":["10.0.0.1"]}`, "dns.nameserver is no key of P, but dns.nameservers is"},
		{networks, `"vlanTrunk":[{"id":5},{"minId":5,"maximumID":6}]`, ""},
		{networks, `"vlanTrunk":[{"id":5},{"miniD":5,"maxiD":6,"min":1}]`, ""},
		{networks, `"vlanTrunk":[{"id":5},{"minIDs":5}]`, "vlanTrunk[1].minIDs is no key of P, but vlanTrunk[1].minID is"},
		{networks, `"conditionsV4":["-s","10.0.0.0/8"]`, "conditionsV4 is no key of P: it is one of portmap-ln"},
		{Bridge, `"isolated":true`, "isolated is no key of P: it is one of overlay-ln"},
		{Bridge, `"subnet":"10.1.0.0/24"`, "subnet is no key of P: it is one of overlay-ln"},
		{Bridge, pool + `"range":[],"ranges":[[{"subnet":"10.1.0.0/24","rangeStrat":"10.1.0.5"}]]}`, "ipam.range is no key of P, but ipam.ranges is; ipam.ranges[0][0].rangeStrat is no key of P, but ipam.ranges[0][0].rangeStart is"},
		{IPAM, pool + `"subnet":"10.1.0.0/24","excludes":["10.1.0.5"]}`, "ipam.excludes is no key of P, but ipam.exclude is"},
		{IPAM, `"gatewaymod":"nat","mac":1,"runtimeConfig":{"mac":"x"},"ipam":{"type":"ipam-ln"}`, ""},
		{networks, `"capabilities":{"portMappings":true,"portmappings":true}`, "capabilities.portmappings is no key of P, but capabilities.portMappings is"},
		{attachers, `"capabilities":{"portMapping":true}`, "capabilities.portMapping is no key of P, but capabilities.portMappings is"},
		{attachers, `"runtimeConfig":{"portMappings":[{"HostPort":1,"containerport":2,"sourceRange":["10.0.0.0/8"]}]}`, "runtimeConfig.portMappings[0].sourceRange is no key of P, but runtimeConfig.portMappings[0].sourceRanges is"},
		{Bridge, `"ipam":{"type":"host-local","rangs":[],"datadir":"x"}`, ""},
		{Overlay, `"ipam":{"datadirs":"x"}`, "ipam.datadirs is no key of P, but ipam.dataDir is"},
		{Overlay, `"node":[],"blocksizes":{"ipv4":5},"isolate":true`, "node is no key of P, but nodes is; blocksizes is no key of P, but blockSize is; isolate is no key of P, but isolated is"},
		{Portmap, `"conditionV4":["x"],"gatewayMode":"nat"`, "conditionV4 is no key of P, but conditionsV4 is; gatewayMode is no key of P: it is one of bridge-ln, overlay-ln"},
		{attachers, `"` + strings.Repeat("x", 100) + `":1,"":2,"-":3`, ""},
		{networks, `"mtu\n":1`, `"mtu\n" is no key of P, but mtu is`},
		{attachers, `"runtimeConfig":7,"capabilities":null,"strict":[]`, ""},
	} {
		for _, p := range Plugins() {
			if want := strings.ReplaceAll(tt.want, "P,", p.String()+","); tt.of&p != 0 {
				want = strings.ReplaceAll(want, "P:", p.String()+":")
				if got := found(t, p, tt.keys); got != want {
					t.Errorf("%s: %s:\n got %s\nwant %s", p, tt.keys, got, want)
				}
			}
		}
	}
}

// A configuration of very many keys costs little, and its line is short.
func TestUnknownIsBounded(t *testing.T) {
	var near, far, twice strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&near, `"mtus":1,`)
		fmt.Fprintf(&far, `"k%d":1,`, i)
		fmt.Fprintf(&twice, `"mtu":1,`)
	}
	for _, keys := range []string{near.String(), far.String(), twice.String()} {
		line, err := Check(source(t, keys+`"x":1`).Conf, Bridge)
		if err != nil || len(line) > 2000 {
			t.Errorf("%.20s…: a line of %d bytes, %v", keys, len(line), err)
		}
	}
}

// A letter too few, too many, in the wrong place or another one is noticed in every key.
func TestUnknownLetters(t *testing.T) {
	for _, p := range []Plugin{Bridge, Overlay, Portmap} {
		for _, k := range Table(p) {
			if len(k.Name) < 3 {
				continue
			}
			mid := len(k.Name) / 2
			for _, name := range []string{
				k.Name[:mid] + k.Name[mid+1:], k.Name[:mid] + "x" + k.Name[mid:], k.Name[:mid] + "x" + k.Name[mid+1:],
				k.Name[:mid-1] + k.Name[mid:mid+1] + k.Name[mid-1:mid] + k.Name[mid+1:],
			} {
				i := find(table[:], name, false)
				if strings.ContainsAny(name, "./") || i >= 0 || name == k.Name {
					continue
				}
				if got := found(t, p, fmt.Sprintf("%q:1", name)); !strings.Contains(got, "but ") {
					t.Errorf("%s: %s for %s: %q", p, name, k.Name, got)
				}
			}
		}
	}
}

// Keys of runtimes and of programs that call plugins are never taken for ours, and of the keys of
// other plugins none but a part of one of ours: promisc, spoofchk.
func TestVendors(t *testing.T) {
	top := append(slices.Clone(vendorKeys), strings.Fields(`type prevResult dns args capabilities runtimeConfig ipam
		vendor Documentation readinessindicatorfile io.kubernetes.cri.pod-annotations cni.dev/valid-attachments cni.dev/attachments plugins
		mode linkInContainer vlanId table vrfname ingressRate ingressBurst egressRate egressBurst sysctl mac txQLen allmulti
		firewallZone iptablesAdminChainName domainName log_level log_file datastore_type nodename policy kubernetes etcd_endpoints
		vethPrefix pluginLogFile pluginLogLevel hwaddr kernelpath gateways addSourceHints owner group multiQueue link_state max_tx_rate`)...)
	inside := map[string][]string{
		"runtimeConfig":  strings.Fields("portMappings bandwidth dns ipRanges ips mac aliases cgroupPath infinibandGUID deviceID io.kubernetes.cri.pod-annotations podAnnotations"),
		"args":           strings.Fields("cni podman_labels podman_options"),
		"args.cni":       strings.Fields("labels ips mac sysctl promisc mtu allmulti txQLen"),
		"capabilities":   strings.Fields("portMappings bandwidth dns ipRanges ips mac aliases cgroupPath infinibandGUID deviceID io.kubernetes.cri.pod-annotations CNIDeviceInfoFile"),
		"prevResult":     strings.Fields("interfaces ips routes dns"),
		"prevResult.dns": strings.Fields("nameserver"),
	}
	for _, p := range Plugins() {
		for _, name := range top {
			if i := find(table[:], name, false); i >= 0 && table[i].Of&p == 0 && !table[i].CNI {
				continue // as subnet, which is overlay-ln's
			}
			if got := found(t, p, fmt.Sprintf("%q:{}", name)); got != "" {
				t.Errorf("%s: %s", p, got)
			}
		}
		for in, names := range inside {
			for _, name := range names {
				keys := fmt.Sprintf("{%q:1}", name)
				for in := in; in != ""; {
					cut := strings.LastIndexByte(in, '.')
					keys = fmt.Sprintf("{%q:%s}", in[cut+1:], keys)
					in = in[:max(cut, 0)]
				}
				if got := found(t, p, keys[1:len(keys)-1]); got != "" {
					t.Errorf("%s: %s: %s", p, in, got)
				}
			}
		}
	}
}

// No example has a key without effect, whatever the plugin before or behind it says.
func TestExamplesHaveNoUnknown(t *testing.T) {
	files, err := filepath.Glob("../../conf/examples/*.conflist")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Plugins []json.RawMessage }
		if err := json.Unmarshal(data, &list); err != nil {
			t.Fatal(err)
		}
		for _, plugin := range list.Plugins {
			conf, err := jsonr.Parse(plugin)
			if err != nil {
				t.Fatal(err)
			}
			of := IPAM // it is called with the configuration of any plugin
			for _, p := range Plugins() {
				if kind, _ := conf.At("type").Text(); kind == p.String() {
					of = p
				}
			}
			if found := Unknown(conf, of); len(found) > 0 {
				t.Errorf("%s: %v", file, found)
			}
		}
	}
}

// With "strict" a finding is an error of code 7, which names key, value and the right key.
func TestCheck(t *testing.T) {
	const spoilt = `"gatewaymod":{"ipv4":"nat"}`
	for _, tt := range []struct {
		of              Plugin
		keys, line, err string
	}{
		{networks, `"gatewayMode":"nat"`, "", ""},
		{networks, `"gatewayMode":"nat","strict":true`, "", ""},
		{networks, spoilt, `gatewaymod is no key of P, but gatewayMode is; with "strict": true this is an error`, ""},
		{networks, spoilt + `,"strict":false`, `gatewaymod is no key of P`, ""},
		{networks, spoilt + `,"Strict":true`, "", `gatewaymod: {"ipv4":"nat"}: want gatewayMode: this is no key of P`},
		{Bridge, `"isolated":true,"strict":true`, "", `isolated: true: this is no key of P: it is one of overlay-ln`},
		{Bridge, spoilt + `,"ipam":{"type":"ipam-ln","strict":true}`, `gatewaymod is no key`, ""},
		{withRanges, `"ipam":{"type":"ipam-ln","strict":true,"excluded":7}`, "", `ipam.excluded: 7: want ipam.exclude: this is no key of P`},
		{IPAM, `"strict":true,"ipam":{"type":"ipam-ln","excluded":7}`, `ipam.excluded is no key of P, but ipam.exclude is`, ""},
		{Bridge, `"strict":true,"ipam":{"type":"ipam-ln","excluded":"` + strings.Repeat("x", 200) + `"}`, "", "x…: want ipam.exclude"},
	} {
		for _, p := range Plugins() {
			if tt.of&p == 0 {
				continue
			}
			line, err := Check(source(t, tt.keys).Conf, p)
			wantLine, wantErr := strings.ReplaceAll(tt.line, "of P", "of "+p.String()), strings.ReplaceAll(tt.err, "of P", "of "+p.String())
			if !strings.HasPrefix(line, wantLine) || (line == "") != (wantLine == "") {
				t.Errorf("%s: %s: line %q, want %q", p, tt.keys, line, wantLine)
			}
			if (err == nil) != (wantErr == "") || err != nil && (!strings.Contains(err.Error(), wantErr) || !isConfigError(err)) {
				t.Errorf("%s: %s: error %v, want %q", p, tt.keys, err, wantErr)
			}
		}
	}
	if _, err := ReadNetwork(Bridge, source(t, `"strict":"yes"`)); err == nil || err.Error() != `strict: "yes": want true or false` {
		t.Errorf("strict of another type: %v", err)
	}
}
