package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/operator"
	"github.com/libnet-cni/libnet/internal/publish"
)

// Two networks of one host have their records in two directories, as their configurations
// say: what one directory knows is not lost to the other.
func TestTwoStateDirs(t *testing.T) {
	t.Parallel()
	const other = "/run/other"
	l := newLab(t)
	l.attach(l.network("web", natMode("ln0"), "10.32.0.0/24"), "c1", engine.WithPorts(model.PortMapping{HostPort: 8080, ContainerPort: 80}))
	c, err := operator.Open(operator.Options{StateDir: other})
	l.must(err)
	t.Cleanup(c.Close)
	second := &lab{t: t, c: c, out: l.out}
	second.attach(second.network("shop", natMode("ln1"), "10.33.0.0/24"), "c2", engine.WithPorts(model.PortMapping{HostPort: 8081, ContainerPort: 80}))
	p, err := c.Publisher("shop", model.PublishConfig{})
	l.must(err)
	_, err = p.Publish(t.Context(), publish.Publication{
		ID: model.ID{Network: "shop", ContainerID: "c2", IfName: "eth0"}, Netns: netnsOf("c2"),
		Addrs: []netip.Addr{netip.MustParseAddr("10.33.0.2")}, Ports: []model.PortMapping{{HostPort: 8082, ContainerPort: 90}},
	})
	l.must(err)
	confs := t.TempDir()
	for network, keys := range map[string]string{"web": `"bridge": "ln0"`, "shop": `"bridge": "ln1", "stateDir": "` + other + `/"`} {
		conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "bridge-ln", "gatewayMode": "nat", %s}]}`, network, keys)
		l.must(os.WriteFile(filepath.Join(confs, network+".conflist"), []byte(conf), 0o600))
	}
	bin := t.TempDir()
	l.must(os.WriteFile(filepath.Join(bin, "bridge-ln"), []byte("#!/bin/sh\necho bridge-ln "+version+"\n"), 0o700))
	for dir, theirs := range map[string]string{"/run/libnet": "shop", other: "web"} {
		at := []string{"--state-dir", dir, "--conf-dir", confs}
		out := l.lnctl(exitOK, append(at, "doctor", "--bin-dir", bin)...)
		if want := fmt.Sprintf("✓ other records     those of network %q are in", theirs); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
		if out := l.lnctl(exitOK, append(at, "repair")...); strings.Contains(out, theirs) || strings.Contains(out, "rebuilt") {
			t.Errorf("repair of %s: %s", dir, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "networks", theirs)); err == nil {
			t.Errorf("repair of %s wrote records of %s", dir, theirs)
		}
	}
	if out := l.lnctl(exitProblem, "network", "rm", "shop", "--config", "--conf-dir", confs); !strings.Contains(out, "--state-dir "+other) {
		t.Errorf("removal of the other directory's network: %s", out)
	}
	if _, err := os.Stat(filepath.Join(confs, "shop.conflist")); err != nil {
		t.Error(err)
	}
	// A lost state directory is still known by its network's configuration.
	l.must(os.RemoveAll(other))
	l.must(os.Mkdir(other, 0o700))
	if out := l.lnctl(exitOK, "--state-dir", other, "--conf-dir", confs, "repair"); !strings.Contains(out, "shop") || strings.Contains(out, "web") {
		t.Errorf("repair of a lost directory: %s", out)
	}
	l.lnctl(exitOK, "--state-dir", other, "check")
}
