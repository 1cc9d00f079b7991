package main

import (
	"context"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/null"
)

// Networks of drivers that are not the engine's are in the list, with their endpoints.
func TestNetworksOfOtherDrivers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx := context.Background()
	s := driver.New("/run/libnet", func(driver.Life) bool { return false })
	n := driver.Network{Name: "nothing", Driver: null.Name}
	l.must(s.Create(ctx, n, null.Capability()))
	_, err := s.CreateEndpoint(ctx, n, driver.Spec{Name: "c9"})
	l.must(err)
	if out := l.lnctl(exitOK, "network", "ls"); strings.Join(strings.Fields(strings.Split(out, "\n")[1]), " ") != "nothing null - - - 1 0" {
		t.Errorf("got\n%s", out)
	}
	if out := l.lnctl(exitOK, "network", "ls", "--json"); !strings.Contains(out, `"driver": "null"`) || strings.Contains(out, "null,") {
		t.Errorf("got\n%s", out)
	}
}
