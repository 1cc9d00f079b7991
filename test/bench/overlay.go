package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// manyNodes is of how many hosts the larger of the networks is that are timed.
const manyNodes = 1000

// overlays compares networks that span hosts with what they stand on, and their
// ADD with that of a network of one host.
func overlays(r *report, n int) error {
	if err := tunnels(r, max(min(n, 8), n/4)); err != nil {
		return err
	}
	return spanning(r, n)
}

const tunnelText = `Two hosts are two network namespaces with a veth between them, MTU 1500; what is measured is what *Packets* measures. *plain VXLAN* is made by hand: on each
host a VXLAN device without learning, on a bridge with the container, one subnet for both hosts, no rules. overlay-ln routes between the hosts, and its rules are asked.
`

// tunnels sends packets from one host to the other.
func tunnels(r *report, rounds int) error {
	labs, err := newTunnels()
	if err != nil {
		return err
	}
	order := append([]*lab{}, labs...)
	for range rounds {
		rand.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, l := range order {
			if err := l.measure(throughTunnel); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	r.print("\n## Between hosts\n\n" + tunnelText)
	under, plain, ours := labs[0].got[throughTunnel], labs[1].got[throughTunnel], labs[2].got[throughTunnel]
	t := &table{columns: []string{"", "stream Gbit/s", "±", "/ underlay", "packets/s", "±", "/ underlay", "round trip µs p50", "p99", "p50 / underlay"}}
	for _, l := range labs {
		t.row(l.figureCells(throughTunnel, under)...)
	}
	t.row("overlay-ln / plain VXLAN", "", "", short(median(ours.stream)/median(plain.stream)), "", "", short(median(ours.packets)/median(plain.packets)),
		"", short(ratio(ours.trip, plain.trip, 99)), short(ratio(ours.trip, plain.trip, 50)))
	t.print(r, fmt.Sprintf("%s, %d times", throughTunnel, rounds))
	packetTargets(r, throughTunnel, labs[1].name, ours, plain)
	var worlds []*world
	for _, l := range labs {
		worlds = append(worlds, l.w)
	}
	return closeAll(worlds)
}

// newTunnels are the hosts themselves, VXLAN by hand, and ours.
func newTunnels() ([]*lab, error) {
	return newLabs(way{"overlay-ln", (*lab).byPlugin})
}

// way is how the containers of a lab are connected.
type way struct {
	name string
	make func(*lab) error
}

// newLabs are the hosts themselves, VXLAN by hand, and others.
func newLabs(others ...way) ([]*lab, error) {
	hosts := func(l *lab) error {
		l.a, l.b = place{"", near}, place{netnsDir + "/" + farHost, far}
		return nil
	}
	var all []*lab
	for _, m := range append([]way{{"host to host, underlay", hosts}, {"plain VXLAN", (*lab).byHand}}, others...) {
		w, err := newHosts()
		if err != nil {
			return nil, err
		}
		l := &lab{name: m.name, w: w, got: newFigures()}
		if err := m.make(l); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// The far host is a namespace of a world whose own is the near one.
const (
	farHost = "far"
	near    = "192.0.2.1"
	far     = "192.0.2.2"
)

// newHosts makes a world that is one host, and another one in it.
func newHosts() (*world, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	return w, w.do(func() error {
		path, err := newNetns(farHost)
		if err != nil {
			return err
		}
		return errors.Join(connect("uplink", near+"/24", path, "uplink", far+"/24"), ip("route", "add", "default", "via", far))
	})
}

// eachHost runs fn on both hosts, with the name of the container there.
func (l *lab) eachHost(fn func(i int, netns string) error) error {
	for i, host := range []string{"", netnsDir + "/" + farHost} {
		var netns string
		err := l.w.do(func() (err error) {
			netns, err = newNetns(fmt.Sprint("lab", i))
			return err
		})
		if err == nil {
			err = l.at(host, func() error { return fn(i, netns) })
		}
		if err != nil {
			return err
		}
		[]*place{&l.a, &l.b}[i].netns = netns
	}
	return nil
}

// byHand joins a container of each host by VXLAN and bridges.
func (l *lab) byHand() error {
	hosts := []string{near, far}
	return l.eachHost(func(i int, netns string) error {
		addr := fmt.Sprintf("10.80.0.%d", 2+i)
		[]*place{&l.a, &l.b}[i].addr = addr
		if err := ip("link", "add", "vx0", "type", "vxlan", "id", "77", "dstport", "4789", "local", hosts[i], "remote", hosts[1-i], "nolearning"); err != nil {
			return err
		}
		return errors.Join(
			ip("link", "add", "bench0", "mtu", "1450", "type", "bridge"), ip("link", "set", "vx0", "master", "bench0", "up"), setUp("bench0"),
			connect("port", "", netns, "eth0", addr+"/16"), ip("link", "set", "port", "master", "bench0"),
			ip("-n", fmt.Sprint("lab", i), "link", "set", "eth0", "mtu", "1450"))
	})
}

// byPlugin joins them by overlay-ln.
func (l *lab) byPlugin() error {
	err := l.eachHost(func(i int, netns string) error {
		keys := ""
		if i > 0 { // the hosts have one file system
			keys = `,"stateDir":"/run/libnet-far","ipam":{"type":"ipam-ln","dataDir":"/var/lib/leases-far"}`
		}
		c := &chain{name: l.name, w: l.w, cni: newCNI(execer())}
		if err := c.configure(overlayConf(3, keys)); err != nil {
			return err
		}
		return c.run("ADD", container{id: fmt.Sprint("lab", i), netns: netns}.runtime())
	})
	for _, p := range []*place{&l.a, &l.b} {
		if err == nil {
			p.addr, err = l.address(p.netns, "eth0")
		}
	}
	return err
}

// overlayConf is a network of so many hosts: near, far, and others that are behind far.
func overlayConf(nodes int, keys string) string {
	all := []string{near, far}
	for i := range nodes - 2 {
		all = append(all, fmt.Sprintf("198.18.%d.%d", i/250, 1+i%250))
	}
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"overlay-ln","bridge":"bench0","capabilities":{"portMappings":true},
		"nodes":["%s"],"subnet":"10.64.0.0/10"%s}]}`, strings.Join(all, `","`), keys)
}

const spanningText = `As *full* above, one published port with each container: bridge-ln with the mode nat, and overlay-ln, whose network has its VXLAN device and all entries already.
`

// spanning times ADD, CHECK and DEL.
func spanning(r *report, n int) error {
	var chains []*chain
	for _, m := range []struct{ name, conf string }{
		{"bridge-ln", fmt.Sprintf(oursFull, 61)},
		{"overlay-ln, 3 hosts", overlayConf(3, "")},
		{fmt.Sprintf("overlay-ln, %d hosts", manyNodes), overlayConf(manyNodes, "")},
	} {
		w, err := newHosts()
		if err != nil {
			return err
		}
		c, err := newChain(m.name, m.conf, w)
		if err != nil {
			return err
		}
		c.ports = 1
		chains = append(chains, c)
	}
	for _, c := range chains { // the network's first container makes what is its own, and stays
		if reached, err := c.populate(1); err != nil || !reached {
			return errors.Join(fmt.Errorf("%s: first container", c.name), err)
		}
	}
	for _, rounds := range []int{1, max(1, n)} {
		var all []cycler
		for _, c := range chains {
			c.forget()
			all = append(all, c)
		}
		if err := runRounds(rounds, all); err != nil {
			return err
		}
	}
	r.print("\n" + spanningText)
	t := verbTable()
	t.verbs(chains...)
	bridge := chains[0]
	for _, c := range chains[1:] {
		t.row(c.name+" / bridge-ln", t.ratios(c, bridge)...)
		for _, v := range []struct {
			verb     string
			of, over durations
		}{{"ADD", c.add, bridge.add}, {"DEL", c.del, bridge.del}} {
			x := ratio(v.of, v.over, 50)
			r.limit(c.name+": "+v.verb, "≤ 1.3 × bridge-ln", x, 1.3, short(x))
		}
	}
	t.print(r, fmt.Sprintf("ADD, CHECK and DEL, %d times", len(bridge.add)))
	var worlds []*world
	for _, c := range chains {
		worlds = append(worlds, c.w)
	}
	return closeAll(worlds)
}
