package netconf

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// keyRow is a key with a value that changes what is read, and one that is refused.
type keyRow struct {
	path      string
	of        Plugin
	at        string // where the key is {}, with what it needs; empty: {} alone
	good, bad string // empty: other rows need the key
}

// with is the configuration with a value of the key; empty: without the key.
func (r keyRow) with(p Plugin, value string) string {
	at := cmp.Or(r.at, "{}")
	if p == Overlay && r.of&IPAM != 0 { // which has the host's block
		at = `"nodes":["192.0.2.1"],"subnet":"10.5.0.0/16",` + strings.ReplaceAll(at, `"ranges":[[{"subnet":"10.1.0.0/24"}]]`, `"sticky":false`)
	}
	member := ""
	if value != "" {
		member = fmt.Sprintf(",%q:%s", r.path[strings.LastIndexByte(r.path, '.')+1:], value)
	}
	return strings.NewReplacer(",{}", member, "{}", strings.TrimPrefix(member, ",")).Replace(at)
}

const (
	atPool  = `"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]],{}}`
	atRange = `"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24",{}}]]}`
	atRoute = `"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{"dst":"10.2.0.0/16",{}}]}`
	atHosts = `"nodes":["192.0.2.1"],"subnet":"10.5.0.0/16",{}`
	atPort  = `"runtimeConfig":{"portMappings":[{{}}]}`
)

func keyRows() []keyRow {
	var rows []keyRow
	row := func(of Plugin, at, path, good, bad string) { rows = append(rows, keyRow{path, of, at, good, bad}) }
	for _, key := range strings.Fields("isGateway isDefaultGateway forceAddress ipMasq hairpinMode promiscMode preserveDefaultVlan macspoofchk enabledad disableContainerInterface portIsolation internal") {
		row(networks, "", key, "true", `"yes"`)
	}
	row(networks, "", "icc", "false", "1")
	row(networks, "", "bridge", `"br7"`, "7")
	row(networks, "", "gwPriority", "-5", "2147483648")
	row(networks, "", "ipMasqBackend", `"nftables"`, `"ebtables"`)
	row(networks, "", "mtu", "1400", `"big"`)
	row(networks, "", "vlan", "7", `"7"`)
	row(networks, "", "vlanTrunk", `[{"id":5}]`, "{}")
	row(networks, `"vlanTrunk":[{{}}]`, "vlanTrunk.id", "5", `"x"`)
	row(networks, `"vlanTrunk":[{"maxID":9,{}}]`, "vlanTrunk.minID", "5", "10")
	row(networks, `"vlanTrunk":[{"minID":5,{}}]`, "vlanTrunk.maxID", "9", "4095")
	row(networks, "", "gatewayMode", `"routed"`, `"open"`)
	row(networks, `"gatewayMode":{{}}`, "gatewayMode.ipv4", `"routed"`, `"open"`)
	row(networks, `"gatewayMode":{{}}`, "gatewayMode.ipv6", `"routed"`, `"open"`)
	row(networks, "", "trustedInterfaces", `["wg0"]`, `"wg0"`)
	row(networks, "", "acceptFwMark", `"0x1"`, `"x"`)
	row(networks, "", "snatIPv4", `"192.0.2.1"`, `"host"`)
	row(networks, "", "snatIPv6", `"2001:db8::1"`, `"host"`)
	row(networks, "", "ingressPolicy", `"isolated"`, `"closed"`)
	row(networks, "", "dns", `{"domain":"a"}`, `"a"`)
	row(networks, `"dns":{{}}`, "dns.nameservers", `["10.0.0.1"]`, `"10.0.0.1"`)
	row(networks, `"dns":{{}}`, "dns.domain", `"a"`, "1")
	row(networks, `"dns":{{}}`, "dns.search", `["a"]`, `[1]`)
	row(networks, `"dns":{{}}`, "dns.options", `["a"]`, `"a"`)
	row(Overlay, `"subnet":"10.5.0.0/16",{}`, "nodes", `["192.0.2.1"]`, `["a"]`)
	row(Overlay, `"nodes":[{{}}]`, "nodes.address", `"192.0.2.1"`, `"a"`)
	row(Overlay, `"nodes":[{"address":"192.0.2.1",{}}]`, "nodes.subnet", `"10.5.0.0/24"`, `"10.5.0.1/24"`)
	const key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
	secure := `"nodes":[{"address":"192.0.2.1","publicKey":"` + key + `"}],"subnet":"10.5.0.0/16",`
	row(Overlay, `"encryption":"wireguard","privateKeyFile":"/k","subnet":"10.5.0.0/16","nodes":[{"address":"192.0.2.1",{}}]`, "nodes.publicKey", `"`+key+`"`, `"AQE="`)
	row(Overlay, secure+`"privateKeyFile":"/k",{}`, "encryption", `"wireguard"`, `"ipsec"`)
	row(Overlay, secure+`"encryption":"wireguard",{}`, "privateKeyFile", `"/k"`, "1")
	row(Overlay, `"nodes":["192.0.2.1"],{}`, "subnet", `["10.5.0.0/16"]`, `"10.5.0.1/16"`)
	row(Overlay, atHosts, "blockSize", `{"ipv4":20}`, "20")
	row(Overlay, atHosts[:len(atHosts)-2]+`"blockSize":{{}}`, "blockSize.ipv4", "20", "31")
	row(Overlay, atHosts[:len(atHosts)-2]+`"blockSize":{{}}`, "blockSize.ipv6", "80", "127")
	row(Overlay, atHosts, "vni", "7", `"7"`)
	row(Overlay, atHosts, "port", "8472", `"7"`)
	row(Overlay, atHosts, "device", `"eth1"`, "1")
	row(Overlay, atHosts, "isolated", "true", "1")
	row(Overlay, `"subnet":"10.5.0.0/16",{}`, "directRouting", "true", "1")

	row(attachers, "", "snat", "false", `"no"`)
	row(attachers, "", "masqAll", "true", "1")
	row(attachers, "", "backend", `"iptables"`, `"ebtables"`)
	row(networks, "", "fastPath", `"auto"`, `"on"`)
	row(networks, "", "names", "true", `"yes"`)
	row(networks, `"names":{{}}`, "names.domain", `"lab.example"`, `"-..x"`)
	row(networks, `"names":{{}}`, "names.responder", `"bpf"`, `"kernel"`)
	row(networks, `"names":true,"runtimeConfig":{{}}`, "runtimeConfig.aliases", `["a"]`, `["a b"]`)
	row(networks, `"names":true,"args":{"cni":{{}}}`, "args.cni.names", `["a"]`, `["a b"]`)

	row(networks, "", "configFrom", `"web"`, `"../web"`)
	row(attachers, "", "log", `{"file":"/l"}`, `"/l"`)
	row(attachers, `"log":{{}}`, "log.file", `"/l"`, `"l"`)
	row(attachers, `"log":{{}}`, "log.level", `"debug"`, `"loud"`)
	row(attachers, "", "stateDir", `"/s"`, `"s"`)
	row(Portmap, "", "conditionsV4", `["-s","10.0.0.0/8"]`, `"-s 10.0.0.0/8"`)
	row(Portmap, "", "conditionsV6", `["-s","::1"]`, `"-s ::1"`)
	row(Portmap, "", "markMasqBit", "14", `"x"`)
	row(Portmap, "", "externalSetMarkChain", `"KUBE-MARK-MASQ"`, `"two words"`)

	row(withRanges, "", "ipam", `{"type":"ipam-ln","subnet":"10.1.0.0/24"}`, `"x"`)
	row(Overlay, atHosts, "ipam", `{"dataDir":"/d"}`, `"x"`)
	row(withRanges, `"ipam":{"type":"ipam-ln",{}}`, "ipam.ranges", `[[{"subnet":"10.1.0.0/24"}]]`, `{}`)
	row(withRanges, `"ipam":{"type":"ipam-ln","ranges":[[{{}}]]}`, "ipam.ranges.subnet", `"10.1.0.0/24"`, `"10.1.0.0"`)
	row(withRanges, atRange, "ipam.ranges.rangeStart", `"10.1.0.5"`, "5")
	row(withRanges, atRange, "ipam.ranges.rangeEnd", `"10.1.0.9"`, `"x"`)
	row(withRanges, atRange, "ipam.ranges.gateway", `"10.1.0.9"`, "{}")
	row(withRanges, `"ipam":{"type":"ipam-ln",{}}`, "ipam.subnet", `"auto/24"`, `"auto/99"`)
	for _, key := range strings.Fields("rangeStart rangeEnd gateway") {
		row(withRanges, `"ipam":{"type":"ipam-ln","subnet":"10.1.0.0/24",{}}`, "ipam."+key, `"10.1.0.9"`, `"x"`)
	}
	row(pools, atPool, "ipam.routes", `[{"dst":"10.2.0.0/16"}]`, "{}")
	row(pools, `"ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{{}}]}`, "ipam.routes.dst", `"10.2.0.0/16"`, `"x"`)
	row(pools, atRoute, "ipam.routes.gw", `"10.1.0.9"`, `"x"`)
	for _, key := range strings.Fields("mtu advmss priority table scope") {
		row(pools, atRoute, "ipam.routes."+key, "900", `"x"`)
	}
	row(pools, atPool, "ipam.dataDir", `"/d"`, "1")
	row(pools, atPool, "ipam.resolvConf", `"testdata/resolv.conf"`, `"/no/such/file"`)
	row(pools, atPool, "ipam.exclude", `["10.1.0.5"]`, `"10.1.0.5"`)
	row(pools, atPool, "ipam.auxAddresses", `{"nas":"10.1.0.9"}`, `["10.1.0.9"]`)
	row(pools, atPool, "ipam.strategy", `"hash"`, `"best"`)
	row(pools, atPool, "ipam.sticky", "true", `"yes"`)
	row(pools, atPool, "ipam.cooldown", "5", "-1")
	row(pools, atPool, "ipam.rebootPolicy", `"keep"`, `"forget"`)
	row(pools, atPool, "ipam.warnAt", "80", "101")
	row(Bridge, "", "ipam.type", "", "")

	row(attachers, "", "runtimeConfig", `{"portMappings":[{}]}`, "[]")
	row(attachers, `"runtimeConfig":{{}}`, "runtimeConfig.portMappings", "[{}]", "{}")
	row(attachers, atPort, "runtimeConfig.portMappings.hostPort", "1", `"http"`)
	row(attachers, atPort, "runtimeConfig.portMappings.hostPortEnd", "9", `"x"`)
	row(attachers, atPort, "runtimeConfig.portMappings.containerPort", "80", "80.5")
	row(attachers, atPort, "runtimeConfig.portMappings.protocol", `"udp"`, "6")
	row(attachers, atPort, "runtimeConfig.portMappings.hostIP", `"192.0.2.1"`, `"fe80::1%eth0"`)
	row(attachers, atPort, "runtimeConfig.portMappings.sourceRanges", `["10.0.0.0/8"]`, `["10.0.0.1/8"]`)
	row(networks, `"runtimeConfig":{{}}`, "runtimeConfig.mac", `"02:00:00:00:00:01"`, `"x"`)
	row(networks, `"runtimeConfig":{{}}`, "runtimeConfig.gwPriority", "5", "[]")
	row(networks, `"runtimeConfig":{{}}`, "runtimeConfig.bandwidth", `{"egressRate":5}`, "5")
	row(networks, `"args":{"cni":{{}}}`, "args.cni.mac", `"02:00:00:00:00:01"`, `"01:00:5e:00:00:01"`)
	row(networks, `"args":{"cni":{{}}}`, "args.cni.gwPriority", "5", "-2147483649")
	row(pools, atPool[:len(atPool)-4]+`},"args":{"cni":{{}}}`, "args.cni.ips", `["10.1.0.5"]`, `["x"]`)
	row(pools, atPool[:len(atPool)-4]+`},"runtimeConfig":{{}}`, "runtimeConfig.ips", `["10.1.0.5"]`, `"10.1.0.5"`)
	row(withRanges, atPool[:len(atPool)-4]+`},"runtimeConfig":{{}}`, "runtimeConfig.ipRanges", `[{"subnet":"10.3.0.0/24"}]`, "{}")
	return rows
}

// readAny reads a configuration as a plugin does.
func readAny(p Plugin, s Source) (any, error) {
	switch p {
	case IPAM:
		return ReadPool(s)
	case Portmap:
		return ReadPublish(s)
	}
	return ReadNetwork(p, s)
}

// TestKeys shows of each key of each plugin that its value counts, and that a wrong one is
// refused with the key.
func TestKeys(t *testing.T) {
	same := []gocmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), gocmp.AllowUnexported(Pool{})}
	seen := map[string]Plugin{}
	for _, row := range keyRows() {
		seen[row.path] |= row.of
		if row.good == "" {
			continue // other rows need it
		}
		for _, p := range Plugins() {
			if row.of&p == 0 {
				continue
			}
			got, err := readAny(p, source(t, row.with(p, row.good)))
			if err != nil {
				t.Errorf("%s: %s: %v", p, row.path, err)
				continue
			}
			without, _ := readAny(p, source(t, row.with(p, "")))
			if gocmp.Equal(got, without, same...) {
				t.Errorf("%s: %s: %s changes nothing", p, row.path, row.good)
			}
			_, err = readAny(p, source(t, row.with(p, row.bad)))
			if err == nil || !isConfigError(err) || !strings.HasPrefix(plainPath(err.Error()), row.path) && !strings.HasPrefix(row.path, plainPath(err.Error())) {
				t.Errorf("%s: %s: %s: error %v, want one with the key", p, row.path, row.bad, err)
			}
		}
	}
	for _, p := range Plugins() {
		for _, path := range paths("", Table(p)) {
			if slices.Contains(elsewhere, path) || strings.HasPrefix(path, "capabilities.") || strings.HasPrefix(path, "runtimeConfig.ipRanges.") {
				continue
			}
			if seen[path]&p == 0 {
				t.Errorf("%s: no row for %s", p, path)
			}
		}
	}
}

// elsewhere are keys of other tests: strict is Check's, and the rest package cni reads.
var elsewhere = []string{
	"strict", "ipam.strict", "args", "args.cni", "capabilities", "runtimeConfig", "ipam.type",
	"cniVersion", "name", "type", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments",
}

// paths are the paths of keys, those inside a list without brackets.
func paths(in string, keys []Key) (all []string) {
	for _, k := range keys {
		all = append(all, in+k.Name)
		all = append(all, paths(in+k.Name+".", k.Inside)...)
	}
	return all
}

// plainPath is the key that an error begins with, without brackets.
func plainPath(message string) string {
	path, _, _ := strings.Cut(message, ": ")
	for {
		open, end := strings.IndexByte(path, '['), strings.IndexByte(path, ']')
		if open < 0 || end < open {
			return path
		}
		path = path[:open] + path[end+1:]
	}
}

// Every row of the table is whole, and no name is there twice in an object.
func TestTable(t *testing.T) {
	var check func(in string, keys []Key)
	check = func(in string, keys []Key) {
		names := map[string]bool{}
		for i, k := range keys {
			low := strings.ToLower(k.Name)
			if k.Name == "" {
				t.Errorf("the constant with the number %d of the keys in %q has no row in the table", i, in)
			}
			if k.Name == "" || names[low] || k.Of == 0 && k.Name != "plugins" || len(k.Name) > longest {
				t.Errorf("%s%s: %+v", in, k.Name, k)
			}
			names[low] = true
			check(in+k.Name+".", k.Inside)
		}
	}
	check("", table[:])
	if len(runtimeTable) != len(capabilitiesTable) {
		t.Fatalf("%d keys of runtimeConfig, %d capabilities", len(runtimeTable), len(capabilitiesTable))
	}
	for i, k := range runtimeTable {
		if c := capabilitiesTable[i]; c.Name != k.Name || c.Of != k.Of {
			t.Errorf("capability %s of %s is %s of %s", k.Name, k.Of, c.Name, c.Of)
		}
	}
}

// The table marks the keys, and no others, that change the reading of DEL and GC.
func TestCleanupKeys(t *testing.T) {
	loose := func(s Source) any { return []any{LooseNetwork(s), LoosePublish(s)} }
	var cleanup func(in string, keys []Key) map[string]bool
	cleanup = func(in string, keys []Key) map[string]bool {
		all := map[string]bool{}
		for _, k := range keys {
			all[in+k.Name] = k.Cleanup
			for path, is := range cleanup(in+k.Name+".", k.Inside) {
				all[path] = is
			}
		}
		return all
	}
	want := cleanup("", table[:])
	for _, row := range keyRows() {
		if row.good == "" || row.path == "ipam" {
			continue
		}
		changes := !gocmp.Equal(loose(source(t, row.with(row.of, row.good))), loose(source(t, row.with(row.of, ""))))
		if changes != want[row.path] {
			t.Errorf("%s: DEL reads it: %t, the table says %t", row.path, changes, want[row.path])
		}
	}
}
