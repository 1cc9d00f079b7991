package conf

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/netconf"
)

const dockerNetwork = `[{
	"Name": "shop", "Id": "7d86d31b1478", "Created": "2026-10-05T09:00:00Z", "Scope": "local", "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": true,
	"IPAM": {"Driver": "default", "Options": {}, "Config": [
		{"Subnet": "172.28.0.0/16", "IPRange": "172.28.5.0/24", "Gateway": "172.28.5.254", "AuxiliaryAddresses": {"router": "172.28.5.9"}},
		{"Subnet": "fd28::/64", "Gateway": "fd28::1"}]},
	"Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
	"Containers": {"3386a527": {"Name": "web", "IPv4Address": "172.28.5.0/16"}},
	"Options": {
		"com.docker.network.bridge.name": "br-shop", "com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.host_binding_ipv4": "192.0.2.1",
		"com.docker.network.bridge.gateway_mode_ipv6": "routed", "com.docker.network.driver.mtu": "1400", "com.docker.network.host_ipv4": "192.0.2.7",
		"com.docker.network.bridge.trusted_host_interfaces": "wg0:wg1"},
	"Labels": {"team": "shop"}}]`

const podmanNetwork = `[{
	"name": "pods", "id": "2f259bab93aa", "driver": "bridge", "network_interface": "podman1", "created": "2026-10-05T09:00:00Z",
	"subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1", "lease_range": {"start_ip": "10.89.0.50", "end_ip": "10.89.0.99"}}, {"subnet": "fd89::/64", "gateway": "fd89::1"}],
	"routes": [{"destination": "10.100.0.0/16", "gateway": "10.89.0.1", "metric": 100}],
	"ipv6_enabled": true, "internal": false, "dns_enabled": true, "network_dns_servers": ["192.0.2.53"], "ipam_options": {"driver": "host-local"},
	"options": {"mtu": "1450", "vlan": "7", "isolate": "true", "metric": "200"}, "labels": {"app": "x"}}]`

const referenceList = `{"cniVersion": "0.4.0", "name": "ref", "plugins": [
	{"type": "bridge", "bridge": "cni7", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "acme": 1,
	 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}, {"type": "firewall", "backend": "iptables"}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}`

// imports imports a network, and returns it with the plugins of its configuration.
func imports(t *testing.T, data string) (imported, []map[string]any) {
	t.Helper()
	w := importing{confDir: t.TempDir(), prefix: "50", version: "1.1.0"}
	all, err := w.read([]byte(data))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	var list struct {
		Name    string
		Plugins []map[string]any
	}
	if err := json.Unmarshal(all[0].Config, &list); err != nil || list.Name != all[0].Network {
		t.Fatalf("%v: %s", err, all[0].Config)
	}
	for _, f := range lint(netconf.ReadData("x.conflist", all[0].Config)) {
		if !strings.Contains(f.Found, "acme") {
			t.Errorf("lint: %s", f.Found)
		}
	}
	return all[0], list.Plugins
}

// holds compares a value by its JSON.
func holds(t *testing.T, p map[string]any, path, want string) {
	t.Helper()
	var at any = p
	for key := range strings.SplitSeq(path, ".") {
		at, _ = at.(map[string]any)[key]
	}
	if got, err := json.Marshal(at); err != nil || string(got) != want {
		t.Errorf("%s: %s, want %s (%v)", path, got, want, err)
	}
}

// Each key of the network is told of, once: what it becomes, or why it has no counterpart.
func TestImport(t *testing.T) {
	for name, tt := range map[string]struct {
		data    string
		want    map[string]string // of the first plugin
		becomes map[string]string // keys; "": none
	}{
		"Docker": {dockerNetwork, map[string]string{
			"type": `"bridge-ln"`, "bridge": `"br-shop"`, "icc": "false", "mtu": "1400", "gatewayMode": `{"ipv4":"nat","ipv6":"routed"}`, "names": "true",
			"snatIPv4": `"192.0.2.7"`, "trustedInterfaces": `["wg0","wg1"]`, "ipam.auxAddresses": `{"router":"172.28.5.9"}`,
			"ipam.ranges": `[[{"gateway":"172.28.5.254","rangeEnd":"172.28.5.255","rangeStart":"172.28.5.0","subnet":"172.28.0.0/16"}],[{"gateway":"fd28::1","subnet":"fd28::/64"}]]`,
		}, map[string]string{"Labels.team": "", "Options.com.docker.network.bridge.host_binding_ipv4": "", "Containers": "", "IPAM.Config[0].IPRange": "ipam.ranges[][].rangeStart, rangeEnd"}},
		"Podman": {podmanNetwork, map[string]string{
			"type": `"bridge-ln"`, "bridge": `"podman1"`, "mtu": "1450", "vlan": "7", "ingressPolicy": `"same-bridge"`, "names": "true", "gatewayMode": `"nat"`,
			"ipam.ranges": `[[{"gateway":"10.89.0.1","rangeEnd":"10.89.0.99","rangeStart":"10.89.0.50","subnet":"10.89.0.0/24"}],[{"gateway":"fd89::1","subnet":"fd89::/64"}]]`,
			"ipam.routes": `[{"dst":"10.100.0.0/16","gw":"10.89.0.1","priority":100}]`,
		}, map[string]string{"labels.app": "", "network_dns_servers": "", "options.metric": "", "options.mtu": "mtu"}},
		"reference": {referenceList, map[string]string{
			"type": `"bridge-ln"`, "bridge": `"cni7"`, "hairpinMode": "true", "acme": "1", "ipam.type": `"ipam-ln"`, "ipam.routes": `[{"dst":"0.0.0.0/0"}]`,
		}, map[string]string{"plugins[0].acme": "", "plugins[0].ipam.ranges": "plugins[0].ipam.ranges", "plugins[2].type": "plugins[2].type", "name": "name"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, plugins := imports(t, tt.data)
			for path, want := range tt.want {
				holds(t, plugins[0], path, want)
			}
			for key, want := range tt.becomes {
				i := slices.IndexFunc(got.Keys, func(k importedKey) bool { return k.From == key })
				if i < 0 || got.Keys[i].To != want || want == "" && got.Keys[i].Note == "" {
					t.Errorf("%s: %+v, want %q", key, got.Keys, want)
				}
			}
			seen := map[string]bool{}
			for _, k := range got.Keys {
				if seen[k.From] {
					t.Errorf("%s is told of twice", k.From)
				}
				seen[k.From] = true
			}
			if name == "reference" && (len(plugins) != 4 || plugins[1]["type"] != "portmap-ln" || plugins[2]["type"] != "firewall") {
				t.Errorf("plugins: %v", plugins)
			}
		})
	}
}

func TestImportSpecialNetworks(t *testing.T) {
	one, plugins := imports(t, `{"Name": "back", "Driver": "bridge", "Internal": true, "EnableIPv4": false, "IPAM": {"Config": [{"Subnet": "10.7.0.0/24"}, {"Subnet": "fd07::/64"}]}}`)
	holds(t, plugins[0], "internal", "true")
	holds(t, plugins[0], "ipam.ranges", `[[{"subnet":"fd07::/64"}]]`)
	if one.Of != "Docker" {
		t.Error(one.Of)
	}
	_, plugins = imports(t, `[{"name": "n", "driver": "bridge", "network_interface": "lo", "options": {"no_default_route": "1"}}]`)
	holds(t, plugins[0], "bridge", "null") // the host has a link of that name
	holds(t, plugins[0], "ipam.ranges", `[[{"subnet":"auto"}]]`)
	holds(t, plugins[0], "isGateway", "true")
	_, plugins = imports(t, `{"cniVersion": "0.3.1", "name": "one", "type": "bridge", "ipam": {"type": "dhcp"}}`)
	holds(t, plugins[0], "ipam.type", `"dhcp"`)
	for data, want := range map[string]string{
		`[]`:  "no network is in it",
		`{}`:  "want what docker network inspect",
		`xyz`: "JSON",
		`[{"Name": "o", "Driver": "overlay", "IPAM": {}}]`:                                      "overlay-ln spans hosts",
		`[{"name": "m", "driver": "macvlan"}]`:                                                  "no subnet is in it",
		`[{"Name": "m", "Driver": "macvlan", "Internal": true, "Options": {"parent": "eth0"}}]`: "apart from the host's interfaces",
		`[{"Name": "m", "Driver": "ipvlan", "IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}}]`:  "without a parent",
		`[{"Driver": "bridge"}]`: "has no name",
		`[{"x": 1}]`:             "no network of Docker or Podman",
		`{"name": "p", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`:          `plugins[0].type: "ptp" has no counterpart`,
		`[{"Name": "s", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10"}]}}]`: `subnet "10"`,
	} {
		if _, err := (importing{version: "1.0.0"}).read([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", data, err, want)
		}
	}
}

// sample prints what import makes of a file of testdata.
func sample(t *testing.T, name string) string {
	t.Helper()
	cmd := ImportCommand(&console.Output{Format: console.Table}, t.TempDir())
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs([]string{filepath.Join("testdata", name+".json")})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Error(err)
	}
	return out.String()
}

// The networks of a host, as Docker 29 and Podman 5 print them, key by key. LNCTL_UPDATE=1 writes
// the files anew.
func TestImportSamples(t *testing.T) {
	for _, name := range []string{"docker", "podman"} {
		path, got := filepath.Join("testdata", name+".txt"), sample(t, name)
		if os.Getenv("LNCTL_UPDATE") != "" {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v, got\n%s", path, err, got)
		}
	}
}

// No value of a network goes without a word.
func TestImportTellsOfEveryKey(t *testing.T) {
	for _, name := range []string{"docker", "podman"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var networks []map[string]any
		if err := json.Unmarshal(data, &networks); err != nil {
			t.Fatal(err)
		}
		all, err := (importing{version: "1.1.0"}).read(data)
		if err != nil || len(all) != len(networks) {
			t.Fatalf("%v: %d of %d networks", err, len(all), len(networks))
		}
		for i, one := range all {
			for _, l := range leaves("", "", "", 0, networks[i]) {
				told := slices.ContainsFunc(one.Keys, func(k importedKey) bool {
					return k.From == l.path || strings.EqualFold(k.From, "containers") && strings.HasPrefix(l.path, k.From+".")
				})
				if !told && one.Skipped == "" {
					t.Errorf("%s of %s: no word about %s", one.Network, name, l.path)
				}
			}
		}
	}
}

// A network that cannot be imported does not keep the others from it; a host has Docker's "host"
// and "none" always.
func TestImportSome(t *testing.T) {
	w := importing{version: "1.0.0"}
	all, err := w.read([]byte(`[{"Name": "host", "Driver": "host"}, {"Name": "o", "Driver": "overlay", "IPAM": {}}, {"Name": "b", "Driver": "bridge"}]`))
	if err == nil || !strings.Contains(err.Error(), `network "o"`) || len(all) != 2 || all[0].Skipped == "" || all[1].Config == nil {
		t.Errorf("%v: %+v", err, all)
	}
	cmd := ImportCommand(&console.Output{Format: console.Table}, t.TempDir())
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetIn(strings.NewReader(`[{"Name": "host", "Driver": "host"}]`))
	cmd.SetArgs([]string{"-"})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(out.String(), "network host of Docker is not imported: its containers are in the host's own namespace") {
		t.Errorf("%v: %s", err, &out)
	}
}

// The file is written whole, and never over another one; what ADD would refuse is not.
func TestImportWrites(t *testing.T) {
	dir := t.TempDir()
	call := func(data string) (string, error) {
		cmd := ImportCommand(&console.Output{Format: console.Table}, dir)
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetIn(strings.NewReader(data))
		cmd.SetArgs([]string{"-", "--write"})
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	path := filepath.Join(dir, "50-shop.conflist")
	if out, err := call(dockerNetwork); err != nil || !strings.Contains(out, "written to "+path) {
		t.Fatalf("%v: %s", err, out)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(dockerNetwork); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("again: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, before) {
		t.Errorf("%v: %s", err, now)
	}
	if _, err := call(strings.Replace(strings.Replace(dockerNetwork, `"1400"`, `"12"`, 1), `"shop"`, `"low"`, 1)); err == nil || !strings.Contains(err.Error(), "ADD would refuse it: ") {
		t.Errorf("an MTU of 12: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
