package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// The tables say from where packets reach the containers a, of network one, and b, of network
// two, by the networks' modes.
//
//	unpub   from outside by the container's address, a port that is not published
//	direct  from outside by the container's address, the port that is published
//	pub     from outside by the host's address, the published port
//	out     from the container to outside
//	host    from the host by the container's address, a port that is not published
//
//	✓  comes through, and is seen to come from the client's own address
//	M  comes through, and is seen to come from the host: masqueraded
//	✗  does not come through
const matrixAlone = `
          unpub  direct  pub  out  host
none      ✓      ✓       ✓    ✓    ✓
nat       ✗      ✗       ✓    M    ✓
internal  ✗      ✗       ✗    ✗    ✓
routed    ✗      ✓       ✗    ✓    ✓
icc       ✓      ✓       ✓    ✓    ✓
`

// matrixBeside is what the other network leaves of that while it has a container
// on the same bridge: the strictest of both holds. "=": as without it. Each network's
// ports are published as its own mode says: that routed publishes nothing on the host
// closes no port of the other, nor does the other publish those of routed.
const matrixBeside = `
          unpub  direct  pub  out  host
none      =      =       =    =    =
nat       ✗      ✗       =    =    =
internal  ✗      ✗       ✗    ✗    =
routed    ✗      ✗       =    =    =
icc       =      =       =    =    =
`

// The way from the one container, a row, to the other, a column, on two bridges;
// on one bridge by the gateway; and on one bridge without it: containers that have
// given themselves addresses of one subnet. There two ports are kept from each other
// only if both are isolated.
const (
	matrixTwoBridges = `
	          none  nat  internal  routed  icc
	none      ✓     ✗    ✗         ✗       ✓
	nat       M     ✗    ✗         ✗       M
	internal  ✗     ✗    ✗         ✗       ✗
	routed    ✓     ✗    ✗         ✗       ✓
	icc       ✓     ✗    ✗         ✗       ✓
	`
	matrixOneBridge = `
	          none  nat  internal  routed  icc
	none      ✓     ✓    ✓         ✓       ✗
	nat       ✓     ✓    ✓         ✓       ✗
	internal  ✓     ✓    ✓         ✓       ✗
	routed    ✓     ✓    ✓         ✓       ✗
	icc       ✗     ✗    ✗         ✗       ✗
	`
	matrixLayer2 = `
	          none  nat  internal  routed  icc
	none      ✓     ✓    ✓         ✓       ✓
	nat       ✓     ✓    ✓         ✓       ✓
	internal  ✓     ✓    ✓         ✓       ✓
	routed    ✓     ✓    ✓         ✓       ✓
	icc       ✓     ✓    ✓         ✓       ✗
	`
)

// matrixModes are the rows, in the words of a configuration.
var matrixModes = map[string]keys{
	"none":     {"isDefaultGateway": true},
	"nat":      {"gatewayMode": "nat"},
	"internal": {"internal": true, "isGateway": true},
	"routed":   {"gatewayMode": "routed"},
	"icc":      {"isDefaultGateway": true, "icc": false},
}

var matrixOrder = []string{"none", "nat", "internal", "routed", "icc"}

// matrixWorld is two networks on a host.
type matrixWorld struct {
	one, two  string // modes
	oneBridge bool
	backend   string
	fast      bool // packets may go the fast path
}

func (w matrixWorld) String() string {
	layout := "two bridges"
	if w.oneBridge {
		layout = "one bridge"
	}
	way := "slow way"
	if w.fast {
		way = "fast path"
	}
	return strings.Join([]string{w.one + " and " + w.two, layout, w.backend, way}, "/")
}

// matrixWorlds are all, or those that hold every pair of modes on one bridge once,
// with either backend and with and without the fast path in turns, and every mode on two
// bridges.
func matrixWorlds(all bool) []matrixWorld {
	var worlds []matrixWorld
	for i, one := range matrixOrder {
		for j, two := range matrixOrder {
			for k, backend := range []string{"nftables", "iptables"} {
				for _, fast := range []bool{false, true} {
					if all || (i+j)%2 == k && i%2 == 0 == fast {
						worlds = append(worlds, matrixWorld{one, two, true, backend, fast})
					}
					if all || (i+3*j)%10 == 5*k && i%2 == 1 == fast {
						worlds = append(worlds, matrixWorld{one, two, false, backend, fast})
					}
				}
			}
		}
	}
	return worlds
}

// matrixAtOnce is how many worlds there are at a time: mostly they wait for packets
// that do not come.
const matrixAtOnce = 12

// TestMatrix has two networks meet on a host, and things happen to the second one:
// after each of them every container is reached as the tables say. LIBNET_MATRIX=full
// makes every world, else some that cover them.
func TestMatrix(t *testing.T) {
	t.Parallel()
	worlds := make(chan matrixWorld)
	var wg sync.WaitGroup
	for range matrixAtOnce {
		wg.Go(func() {
			for w := range worlds {
				t.Run(w.String(), func(t *testing.T) { newMatrixLab(t, w).happen() })
			}
		})
	}
	for _, w := range matrixWorlds(os.Getenv("LIBNET_MATRIX") == "full") {
		worlds <- w
	}
	close(worlds)
	wg.Wait()
}

// happen goes through the events. Before the first the host has container a.
func (l *matrixLab) happen() {
	one, two := l.conf(0, l.world.one), l.conf(1, l.world.two)
	a := l.join("a", one, published("8080"))
	l.holds("a is alone", "a")
	b := l.join("b", two, published("8090"))
	l.holds("b comes", "a", "b")

	l.failedAdds(one, two)
	l.editedAdds(two)
	l.repair()
	l.holds("repair", "a", "b")
	l.flushes(one, two)

	l.collect(two, `[{"containerID":"b","ifname":"eth0"}]`)
	l.holds("GC that spares b", "a", "b")
	l.must(b.as("DEL"))
	l.holds("DEL of b", "a")
	l.collect(two, "[]")
	l.holds("GC of network two after DEL", "a")
	l.join("b", two, published("8090"))
	l.holds("b comes again", "a", "b")
	l.collect(two, "[]")
	l.holds("GC that takes b", "a")
	l.must(a.as("CHECK"))
	l.nothingCameLate()
}

// failedAdds have attachments fail that come late: the interface is there already,
// the port is held, and there is no namespace.
func (l *matrixLab) failedAdds(one, two string) {
	l.t.Helper()
	publishes := func(mode string) bool { return matrixCell(l.t, matrixAlone, mode, "pub") == "✓" }
	for i, conf := range []string{one, two} {
		l.fails(attachment("bridge-ln", "busy", netnsPath("busy"), conf))
		l.fails(attachment("bridge-ln", "c", netnsPath("nowhere"), conf))
		if publishes(l.world.one) && publishes([]string{l.world.one, l.world.two}[i]) {
			l.fails(attachment("bridge-ln", "c", netnsPath("c"), edit(l.t, conf, keys{
				"capabilities.portMappings": true, "runtimeConfig.portMappings": rawJSON(published("8080")),
			})))
		}
		l.holds(fmt.Sprintf("failed ADDs of network %s", reachNetworks[i].name), "a", "b")
	}
}

// editedAdds attach a container by a configuration of network two that says
// something else.
func (l *matrixLab) editedAdds(two string) {
	l.t.Helper()
	open := l.conf(1, "none")
	if c := attachment("bridge-ln", "c", netnsPath("c"), open); l.run(c.as("ADD")).code == 0 {
		l.holds("network two is open in an edited configuration", "a", "b")
		l.must(c.as("DEL"))
	}
	l.holds("the container of the edited configuration is gone", "a", "b")
	moved := edit(l.t, two, keys{"bridge": "br3"})
	if c := attachment("bridge-ln", "c", netnsPath("c"), moved); l.run(c.as("ADD")).code == 0 {
		l.holds("network two has another bridge in an edited configuration", "a", "b")
		l.must(c.as("DEL"))
		left, err := netlink.LinkByName("br3") // with the same subnet as the network's bridge
		l.check(err)
		l.check(netlink.LinkDel(left))
	}
	l.holds("the container on the other bridge is gone", "a", "b")
	c := attachment("bridge-ln", "c", netnsPath("c"), two)
	l.must(c.as("ADD"))
	l.holds("the configuration is as it was", "a", "b")
	l.must(c.as("DEL"))
}

// flushes take all rules away, and have each of the verbs that mend that.
func (l *matrixLab) flushes(one, two string) {
	l.t.Helper()
	c := attachment("bridge-ln", "c", netnsPath("c"), two)
	if l.world.two == "none" && (!l.world.oneBridge || l.world.one == "none") { // it must need rules to miss them
		c.stdin = edit(l.t, two, keys{"capabilities.portMappings": true, "runtimeConfig.portMappings": rawJSON(published("8095"))})
	}
	l.flush()
	// STATUS looks where a network needs rules, and not by iptables: that takes a process.
	if l.backend == "nftables" && l.world.one+l.world.two != "nonenone" && l.status(one) && l.status(two) {
		l.holds("STATUS 0 after a flush", "a", "b")
	}
	l.flush()
	l.must(c.as("ADD"))
	l.holds("ADD after a flush", "a", "b")
	l.must(c.as("DEL"))
	l.flush()
	l.repair()
	l.holds("repair after a flush", "a", "b")
}
