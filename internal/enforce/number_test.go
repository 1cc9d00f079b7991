package enforce

import (
	"fmt"
	"strings"
	"testing"
)

// A peer that the policies of another pod name may not use a port for which its class and a profile
// of ports happen to have the same number.
func TestClassIsNoProfile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster()
	l.policy("b", `{"podSelector":{"matchLabels":{"pod":"b"}},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"ns":"y"}}}]}]}`)
	var rules []string
	for i := range 30 { // each is a profile, and each has the port
		rules = append(rules, fmt.Sprintf(`{"from":[{"ipBlock":{"cidr":"198.51.100.%d/32"}}],"ports":[{"port":%d},{"port":%d}]}`, i, port, 1000+i))
	}
	l.policy("a", `{"podSelector":{"matchLabels":{"pod":"a"}},"ingress":[`+strings.Join(rules, ",")+`]}`)
	l.reaches("c", "b")
	l.blocked("c", "a")
}
