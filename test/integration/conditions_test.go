package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// TestConcurrentConditions has many containers at once publish ports with
// conditions in words of nft, each by a process of its own that starts nft: half
// of them go while the others come again, and in the end nothing is left.
func TestConcurrentConditions(t *testing.T) {
	t.Parallel()
	const many = 24
	h := newHost(t)
	h.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br9"}}))
	h.check(lntest.Up("br9", "10.99.0.1/16", "fd99::1/64"))
	before := h.snapshot()
	var adds []call
	for i := range many {
		cid := fmt.Sprintf("c%d", i)
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"portmap-ln","conditionsV4":["ip","saddr","10.%d.0.0/16"],"conditionsV6":["tcp","sport","%d-65535"],
			"runtimeConfig":{"portMappings":[{"hostPort":%d,"containerPort":80},{"hostPort":%d,"hostPortEnd":%d,"protocol":"udp"}]},
			"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.99.1.%d/16"},{"interface":0,"address":"fd99::1:%d/64"}]}}`,
			i, 1024+i, 8000+i, 9000+10*i, 9005+10*i, i+1, i+1)
		adds = append(adds, attachment("portmap-ln", cid, h.netns(cid), conf).as("ADD"))
	}
	h.atOnce(adds)
	h.atOnce(as("CHECK", adds))
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	h.check(err)
	for i := range many {
		for _, rule := range []string{fmt.Sprintf("ip saddr 10.%d.0.0/16 goto met comment", i), fmt.Sprintf("tcp sport %d-65535 goto met comment", 1024+i)} {
			if strings.Count(string(out), rule) != 1 {
				t.Errorf("%q is there %d times, want once", rule, strings.Count(string(out), rule))
			}
		}
	}
	h.atOnce(append(as("DEL", adds[:many/2]), adds[many/2:]...))
	h.atOnce(as("CHECK", adds[many/2:]))
	h.atOnce(as("DEL", adds))
	h.same(before)
}
