package integration

import (
	"slices"
	"strings"
	"testing"
)

// The name of a service leads to its address, and without one to its containers; it is
// known when create has returned, and forgotten when rm has.
func TestServiceNames(t *testing.T) {
	l := newNamesLab(t)
	l.startAgent()
	l.join("web", "front")
	l.join("db", "front")
	l.captured()
	s := &servicesLab{host: l.host}
	resolves := func(event, name string, want ...string) {
		t.Helper()
		got := strings.Split(l.answers(query{from: "db", name: name}), " ")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s is %q, want %q", event, name, got, want)
		}
	}
	web := l.address("web", "front", false)
	resolves("before", "shop", "nxdomain")
	for _, name := range []string{"shop", "web"} { // the second is also that of its container
		vip, _, _ := strings.Cut(s.lnctl("service", "create", name, "--network", "front", "--select", "alias=web", "--port", "80"), ",")
		resolves("created", name, vip)
		resolves("created", name+".front", vip)
		resolves("created", "tasks.web", web)
		s.lnctl("service", "rm", name, "--network", "front")
		s.lnctl("service", "create", name, "--network", "front", "--select", "alias=web", "--vip", "none")
		resolves("without address", name, web)
		c := l.call("more", "front", 0)
		l.netns("more")
		c.args = "NAME=web"
		more := parseResult(t, l.must(c.as("ADD")).stdout).addresses(t)[0].Addr().String()
		resolves("another container", name, web, more)
		s.lnctl("service", "drain", name, "more", "--network", "front")
		resolves("drained", name, web)
		l.must(c.as("DEL"))
		resolves("after DEL", name, web)
		s.lnctl("service", "rm", name, "--network", "front")
		l.loseNetns("more")
	}
	resolves("removed", "shop", "nxdomain")
	resolves("removed", "web", web)
}
