// Package arch holds the shape of the module: the imports of its packages, the weight of
// the plugin binaries, and the links and lines of its pages.
package arch

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/libnet-cni/libnet/"

// ladder lists, for each package of ours, which others of ours it may import.
// Patterns are those of path.Match; a package without a line may import none.
var ladder = []struct {
	from string
	to   []string
}{
	{"plugins/*", []string{"internal/report", "internal/cni", "internal/netconf", "internal/plugin", "internal/engine", "internal/model", "internal/publish", "internal/address", "internal/life"}},
	{"internal/plugin", []string{"internal/report", "internal/cni", "internal/plan", "internal/netconf", "internal/engine", "internal/model", "internal/nodefile", "internal/address"}},
	{"internal/netconf", []string{"internal/report", "internal/layers", "internal/jsonw", "internal/jsonr", "internal/model", "internal/plain", "pkg/ipamstore", "pkg/ipamstore/subnets", "internal/wireguard"}},
	{"internal/netconf/keydoc", []string{"internal/netconf"}},
	{"internal/report", []string{"internal/jsonw"}},
	{"internal/telemetry", []string{"internal/report"}},
	{"internal/layers", []string{"internal/jsonr", "internal/jsonw"}},
	{"internal/overlay", []string{"internal/tunnel", "internal/host", "internal/wireguard"}},
	{"cmd/lnctl", []string{"cmd/lnctl/*", "internal/console", "internal/state", "internal/netns", "internal/netconf", "internal/engine", "internal/model", "internal/operator", "internal/address", "internal/life", "internal/balancer", "internal/service", "internal/firewall"}},
	{"cmd/lnctl/find", []string{"internal/state"}},
	{"cmd/lnctl/connect", []string{"cmd/lnctl/find", "internal/address", "internal/cni", "internal/console", "internal/engine", "internal/life", "internal/model", "internal/netconf", "internal/netns", "internal/operator", "internal/plugin", "internal/state"}},
	{"cmd/lnctl/explain", []string{"internal/address", "internal/cni", "internal/console", "internal/firewall/iptables", "internal/firewall/ruleset", "internal/host", "internal/jsonr", "internal/link", "internal/model", "internal/netconf", "internal/netconf/keydoc", "internal/plan", "internal/plugin", "internal/tunnel"}},
	{"cmd/lnctl/live", []string{"internal/console", "internal/firewall/conntrack", "internal/state"}},
	{"cmd/lnctl/graph", []string{"internal/console", "internal/graph", "internal/operator"}},
	{"cmd/lnctl/agent", []string{"internal/console", "internal/diagnostics"}},
	{"internal/diagnostics/server", []string{"internal/diagnostics", "internal/graph"}},
	{"internal/graph", []string{"internal/console", "internal/engine", "internal/operator"}},
	{"cmd/lnctl/status", []string{"internal/console", "internal/engine", "internal/naming", "internal/operator"}},
	{"cmd/lnctl/trace", []string{"cmd/lnctl/find", "internal/console", "internal/host", "internal/netlink", "internal/netns", "internal/nftrace", "internal/routing", "internal/state"}},
	{"cmd/lnctl/conf", []string{"internal/console", "internal/flock", "internal/netconf", "internal/model", "internal/address", "pkg/ipamstore/subnets", "internal/jsonr"}},
	{"cmd/ln-agent", []string{"internal/agent", "internal/names", "internal/registry/etcd", "internal/engine", "internal/model", "internal/nodefile", "internal/registry/kubernetes", "internal/mesh", "internal/overlay", "internal/install", "internal/telemetry", "internal/graph", "internal/operator", "internal/enforce"}},
	{"internal/agent", []string{"internal/inotify", "internal/names", "internal/overlay", "internal/netconf", "internal/engine", "internal/model", "pkg/ipamstore", "internal/nodefile", "internal/life", "internal/netns", "internal/tunnel", "internal/plan", "internal/address", "internal/firewall/nft", "internal/wggo", "internal/wireguard", "internal/flock", "internal/mesh", "internal/service", "internal/balancer", "internal/host", "internal/returnpath", "internal/telemetry", "internal/diagnostics", "internal/diagnostics/server", "internal/graph", "internal/enforce"}},
	{"internal/returnpath", []string{"internal/firewall", "internal/firewall/ruleset", "internal/firewall/transaction", "internal/host", "internal/netlink", "internal/nfnl"}},
	{"internal/enforce", []string{"internal/firewall", "internal/firewall/admit", "internal/firewall/nft", "internal/firewall/ruleset", "internal/netlink", "internal/netpolicy", "internal/state"}},
	{"internal/names", []string{"internal/resolver", "internal/capture", "internal/responder", "internal/state", "internal/netns", "internal/link", "internal/overlay", "internal/service"}},
	{"internal/mesh", []string{"internal/firewall", "internal/firewall/conntrack", "internal/overlay", "internal/service", "internal/balancer", "internal/engine"}},
	{"internal/capture", []string{"internal/nfnl", "internal/plain"}},
	{"internal/registry/etcd", []string{"internal/service", "internal/overlay", "internal/wireguard"}},
	{"internal/registry/kubernetes", []string{"internal/overlay", "internal/wireguard"}},
	{"pkg/ipamstore", []string{"internal/pooldir", "internal/ipmath", "internal/flock", "internal/plain"}},
	{"pkg/ipamstore/subnets", []string{"pkg/ipamstore", "internal/pooldir", "internal/ipmath", "internal/plain"}},
	{"internal/nftrace", []string{"internal/fastpath", "internal/nfnl"}},
	{"internal/routing", []string{"internal/netlink"}},
	{"internal/pooldir", []string{"internal/flock"}},
	{"internal/inotify", []string{"internal/plain"}},
	{"internal/state", []string{"internal/inotify", "internal/jsonr", "internal/jsonw", "internal/flock", "internal/plain"}},
	{"internal/plain", nil},
	{"internal/firewall", nil},
	{"internal/flock", []string{"internal/plain"}},
	{"internal/kernel", []string{"internal/tunnel", "internal/link", "internal/host", "internal/netlink", "internal/procfs"}},
	{"internal/tunnel", []string{"internal/host", "internal/netlink", "internal/plain", "internal/wireguard"}},
	{"internal/wggo", []string{"internal/netlink", "internal/flock"}},
	{"internal/wireguard", []string{"internal/netlink", "internal/plain"}},
	{"internal/link", []string{"internal/host", "internal/netlink", "internal/netns", "internal/plain", "internal/procfs"}},
	{"internal/host", []string{"internal/netlink", "internal/procfs"}},
	{"internal/netlink", []string{"internal/netns", "internal/aside"}},
	{"internal/netns", []string{"internal/flock", "internal/procfs"}},
	{"internal/firewall/tool", []string{"internal/plain"}},
	{"internal/firewall/ruleset", []string{"internal/firewall", "internal/nfnl"}},
	{"internal/firewall/transaction", []string{"internal/fastpath", "internal/firewall", "internal/firewall/ruleset", "internal/nfnl"}},
	{"internal/firewall/nft", []string{"internal/firewall", "internal/firewall/ruleset", "internal/firewall/transaction", "internal/firewall/tool", "internal/netlink", "internal/nfnl"}},
	{"internal/firewall/foreign", []string{"internal/firewall", "internal/firewall/tool", "internal/nfnl"}},
	{"internal/firewall/balance", []string{"internal/firewall", "internal/firewall/ruleset", "internal/firewall/transaction", "internal/nfnl"}},
	{"internal/firewall/admit", []string{"internal/firewall", "internal/firewall/ruleset", "internal/firewall/transaction", "internal/nfnl"}},
	{"internal/netpolicy", []string{"internal/firewall"}},
	{"internal/service", []string{"internal/firewall", "internal/model"}},
	{"internal/balancer", []string{"internal/service", "internal/publish", "internal/model", "internal/firewall/balance", "internal/firewall/ruleset", "internal/netlink", "internal/state"}},
	{"internal/firewall/porttest", []string{"internal/firewall"}},
	{"internal/firewall/conntrack", []string{"internal/nfnl", "internal/procfs"}},
	{"internal/firewall/iptables", []string{"internal/fastpath", "internal/firewall", "internal/firewall/tool", "internal/flock"}},
	{"internal/cni", []string{"internal/report", "internal/jsonr", "internal/jsonw", "internal/plain", "internal/engine", "internal/model", "pkg/ipamstore", "internal/tunnel", "internal/link", "internal/host", "internal/netlink", "internal/firewall", "internal/publish", "internal/address", "internal/life", "internal/wireguard"}},
	{"internal/firewall/either", []string{"internal/firewall", "internal/firewall/iptables", "internal/model", "internal/firewall/nft"}},
	{"internal/policy", []string{"internal/firewall"}},
	{"internal/model", []string{"internal/overlay", "internal/firewall", "internal/ipmath", "internal/wireguard"}},
	{"pkg/libnet", []string{"internal/engine", "internal/model", "internal/driver", "internal/driver/*", "pkg/ipamstore", "pkg/ipamstore/subnets", "internal/nodefile", "internal/publish", "internal/address", "internal/life", "internal/wireguard"}},
	{"internal/driver", []string{"internal/model", "internal/state"}},
	{"internal/driver/*", []string{"internal/driver", "internal/driver/bridge", "internal/model"}},
	{"internal/engine", []string{"internal/report", "internal/model", "internal/policy", "internal/kernel", "internal/tunnel", "internal/link", "internal/host", "internal/netlink", "internal/netns", "internal/overlay", "internal/firewall", "internal/firewall/*", "internal/state", "internal/flock", "internal/plain", "pkg/ipamstore", "pkg/ipamstore/subnets", "internal/nodefile", "internal/publish", "internal/guard", "internal/unwind", "internal/plan", "internal/address", "internal/life", "internal/wireguard", "internal/naming", "internal/responder", "internal/balancer", "internal/service", "internal/shortcut", "internal/fastpath"}},
	{"internal/naming", []string{"internal/life", "internal/model", "internal/netlink", "internal/nfnl", "internal/responder", "internal/state"}},
	{"internal/responder", []string{"internal/bpf", "internal/netlink", "internal/plain"}},
	{"internal/shortcut", []string{"internal/bpf", "internal/fastpath", "internal/host", "internal/netlink", "internal/state"}},
	{"internal/fastpath", []string{"internal/bpf", "internal/netlink", "internal/plain"}},
	{"internal/bpf", []string{"internal/flock"}},
	{"internal/address", []string{"internal/life", "internal/model", "internal/kernel", "internal/link", "internal/netlink", "internal/state", "internal/plain", "pkg/ipamstore", "pkg/ipamstore/subnets"}},
	{"internal/operator", []string{"internal/responder", "internal/driver", "internal/engine", "internal/publish", "internal/guard", "internal/plan", "internal/address", "internal/life", "internal/model", "internal/overlay", "internal/kernel", "internal/tunnel", "internal/link", "internal/host", "internal/netlink", "internal/firewall", "internal/firewall/either", "internal/state", "pkg/ipamstore", "internal/firewall/nft", "internal/firewall/foreign", "internal/wireguard", "internal/balancer", "internal/service", "internal/firewall/admit"}},
	{"internal/nodefile", []string{"internal/model", "internal/host", "internal/state", "internal/jsonr", "internal/jsonw"}},
	{"internal/publish", []string{"internal/guard", "internal/service", "internal/unwind", "internal/plan", "internal/policy", "internal/life", "internal/model", "internal/netlink", "internal/firewall", "internal/firewall/either", "internal/firewall/conntrack", "internal/firewall/nft", "internal/state", "internal/flock", "internal/plain"}},
	{"internal/guard", []string{"internal/plan", "internal/policy", "internal/life", "internal/model", "internal/link", "internal/netlink", "internal/firewall", "internal/firewall/either", "internal/state"}},
	{"internal/plan", []string{"internal/life", "internal/model", "internal/policy", "internal/overlay", "internal/tunnel", "internal/link", "internal/host", "internal/netlink", "internal/firewall", "internal/state", "pkg/ipamstore"}},
	{"internal/life", []string{"internal/model", "internal/link", "internal/netlink", "internal/netns", "internal/state"}},
	{"internal/lntest", nil},
	{"scripts/*", []string{"internal/cni", "internal/netconf", "internal/netconf/keydoc", "internal/netns"}},
	{"test/*", nil},
}

func TestLadder(t *testing.T) {
	for _, line := range goList(t, "{{.ImportPath}}{{range .Imports}} {{.}}{{end}}", "./...") {
		pkg, imports, _ := strings.Cut(strings.TrimPrefix(line, module), " ")
		for imported := range strings.FieldsSeq(imports) {
			of, ours := strings.CutPrefix(imported, module)
			if ours && !allowed(pkg, of) {
				t.Errorf("%s imports %s: the ladder in docs/design.md does not lead there", pkg, of)
			}
		}
	}
}

// anywhere are leaves that every package may use.
var anywhere = []string{"internal/sentinel", "internal/sorting"}

func allowed(from, to string) bool {
	if slices.Contains(anywhere, to) {
		return true
	}
	for _, rung := range ladder {
		if ok, _ := path.Match(rung.from, from); !ok {
			continue
		}
		for _, pattern := range rung.to {
			if ok, _ := path.Match(pattern, to); ok {
				return true
			}
		}
	}
	return false
}

// heavy is what a binary that runs once per pod must not link.
var heavy = []string{
	"net/http", "google.golang.org/grpc", "go.etcd.io/", "k8s.io/", "go.opentelemetry.io/",
	"github.com/coreos/go-iptables",     // a process and a regular expression for each rule
	"regexp", "text/template", "crypto", // init work: crypto alone costs a millisecond before main
}

// ofOperators are the packages of ours that serve a person or an agent: no plugin links them.
var ofOperators = []string{"internal/operator", "internal/agent", "internal/install", "internal/mesh", "internal/netconf/keydoc", "internal/registry", "internal/returnpath", "internal/wggo", "internal/nftrace", "internal/routing", "internal/telemetry", "internal/graph", "internal/diagnostics", "internal/enforce", "internal/netpolicy"}

func TestPluginsStayLight(t *testing.T) {
	for _, pkg := range goList(t, "{{.ImportPath}}", "./plugins/...") {
		for _, dep := range goList(t, "{{join .Deps \"\\n\"}}", pkg) {
			for _, h := range heavy {
				if dep == h || strings.HasPrefix(dep, strings.TrimSuffix(h, "/")+"/") {
					t.Errorf("%s links %s", pkg, dep)
				}
			}
			for _, o := range ofOperators {
				if of := strings.TrimPrefix(dep, module); of == o || strings.HasPrefix(of, o+"/") {
					t.Errorf("%s links %s, which is for operators", pkg, of)
				}
			}
		}
	}
}

// The delegate of foreign IPAM plugins, the driver of CNI plugins and what runs the
// tools of the firewall may start a process, and nothing else; for the doctor, go-iptables.
func TestOnlyTheDelegateStartsProcesses(t *testing.T) {
	for _, line := range goList(t, "{{.ImportPath}}{{range .Imports}} {{.}}{{end}}", "./plugins/...", "./internal/...", "./pkg/...") {
		pkg, imports, _ := strings.Cut(strings.TrimPrefix(line, module), " ")
		if pkg == "internal/cni" || pkg == "internal/driver/cniplugin" || pkg == "internal/lntest" || pkg == "internal/firewall/tool" {
			continue
		}
		for imported := range strings.FieldsSeq(imports) {
			if imported == "os/exec" || strings.HasPrefix(imported, "github.com/coreos/go-iptables/") && pkg != "internal/firewall/foreign" {
				t.Errorf("%s imports %s, which starts processes", pkg, imported)
			}
		}
	}
}

func goList(t *testing.T, format string, patterns ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, patterns...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
