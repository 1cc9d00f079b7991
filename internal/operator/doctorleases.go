package operator

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/address"
)

func (s survey) checkDead() []Finding {
	var all []Finding
	for _, id := range s.dead {
		all = append(all, Finding{"dead attachments", fmt.Sprintf("%s %s in network %q", id.ContainerID, id.IfName, id.Network),
			"lnctl gc removes it and frees its addresses"})
	}
	if len(all) == 0 {
		return []Finding{{About: "dead attachments", Found: "none"}}
	}
	return all
}

func (s survey) checkPools(ctx context.Context) []Finding {
	ok := Finding{About: "address pools", Found: "all have room"}
	var all []Finding
	for _, n := range s.networks {
		pool, is := n.IPAM().(*address.Pool)
		if !is {
			continue
		}
		problem := pool.Shortage(ctx)
		if problem == "" {
			continue
		}
		advice := "lnctl gc frees what the dead hold; else give the network a larger subnet or another range"
		if strings.Contains(problem, unix.EROFS.Error()) || strings.Contains(problem, unix.EACCES.Error()) {
			advice = "ADD and DEL write there: mount " + pool.DataDir() + " writable, or name another ipam.dataDir"
		}
		all = append(all, Finding{"address pool", fmt.Sprintf("network %q: %s", n.Name(), problem), advice})
	}
	if len(all) == 0 {
		return []Finding{ok}
	}
	return all
}
