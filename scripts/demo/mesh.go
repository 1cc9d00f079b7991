package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// meshDemo shows that the containers of a service on three hosts are replaced under load, and no
// request is lost.
type meshDemo struct {
	*fabric
	vip   netip.Addr
	loads []*load
	stops map[string]func()

	mu   sync.Mutex
	seen map[netip.Addr]bool // clients, as containers saw them
}

const shop = "shop"

// homeOf spreads containers over the hosts.
func homeOf(i int) string { return fmt.Sprint("h", i%3+1) }

// meshStory tells it all; the first step that fails ends it.
func meshStory(out *printer, bin, tools, conf string) error {
	f := &fabric{printer: out, confFile: filepath.Base(conf), hosts: map[string]*machine{}, agents: map[string]*exec.Cmd{}, args: map[string]string{}}
	if err := f.prepare(bin, tools, conf); err != nil {
		return err
	}
	if err := f.withNames(); err != nil {
		return err
	}
	d := &meshDemo{fabric: f, stops: map[string]func(){}, seen: map[netip.Addr]bool{}}
	f.printf("Five containers on three hosts are behind one address, and behind port %d of every\n", servicePort)
	f.printf("host. Each is replaced while clients inside and outside open connections.\n\n")
	f.row("conf", "%s on every host, with names, network %q", f.confFile, f.network)
	for _, chapter := range []func() error{f.start, d.add, d.create, d.load, d.replace, d.count, d.end, f.leave} {
		if err := chapter(); err != nil {
			return f.explain(err)
		}
	}
	return nil
}

// withNames has the containers of the network have names.
func (f *fabric) withNames() error {
	var list map[string]any
	if err := json.Unmarshal(f.conf, &list); err != nil {
		return err
	}
	plugins, _ := list["plugins"].([]any)
	for _, p := range plugins {
		if keys, ok := p.(map[string]any); ok {
			keys["names"] = true
		}
	}
	var err error
	f.conf, err = json.Marshal(list)
	return err
}

func (d *meshDemo) lnctl(args string) ([]byte, error) {
	start := time.Now()
	out, err := d.hosts["h1"].do(nil, "lnctl", strings.Fields(args)...)
	if err == nil && !strings.HasPrefix(args, "-o json") {
		d.ok(time.Since(start), "lnctl "+args)
	}
	return out, err
}

// begin adds a container of the service and has it answer with its name.
func (d *meshDemo) begin(host, name string) error {
	d.args[name] = "NAME=web"
	if err := d.addBox(host, name); err != nil {
		return err
	}
	stop, err := serve(d.hosts[host].container(name), func(client netip.Addr) string {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.seen[client] = true
		return name
	})
	if err == nil {
		d.stops[name] = stop
	}
	return err
}

func (d *meshDemo) add() error {
	d.head("ADD", "A client on h1, and five containers of one name on three hosts.")
	errs := []error{d.addBox("h1", shop)}
	for i := range replaced {
		errs = append(errs, d.begin(homeOf(i), old(i)))
	}
	return errors.Join(errs...)
}

func (d *meshDemo) create() error {
	d.head("SERVICE", "Each host checks its own containers; the address of a client is kept everywhere.")
	out, err := d.lnctl(fmt.Sprintf("service create web --network %s --select alias=web --port 80 --publish %d:80 --external preserve --check tcp,interval=1s", d.network, servicePort))
	if err != nil {
		return err
	}
	v4, _, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
	if d.vip, err = netip.ParseAddr(v4); err != nil {
		return err
	}
	d.row("address", "%s", d.vip)
	for i := range replaced {
		if err := d.awaitWell(d.box(old(i))); err != nil {
			return err
		}
	}
	return nil
}

func (d *meshDemo) box(name string) box {
	return d.boxes[slices.IndexFunc(d.boxes, func(b box) bool { return b.name == name })]
}

// found is a container of the service, as lnctl prints it.
type found struct {
	Container string
	Addresses []netip.Addr
	Failing   bool
}

func (d *meshDemo) find(b box) (found, error) {
	out, err := d.lnctl("-o json service inspect web --network " + d.network)
	var s struct{ Backends []found }
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	for _, one := range s.Backends {
		if slices.Contains(one.Addresses, b.addrs[0]) {
			return one, err
		}
	}
	return found{}, errors.Join(err, fmt.Errorf("%s is not behind the service", b.name))
}

// awaitWell waits until the check of a container has succeeded.
func (d *meshDemo) awaitWell(b box) error {
	took, err := until(func() error {
		one, err := d.find(b)
		if err == nil && one.Failing {
			err = fmt.Errorf("%s does not accept", b.name)
		}
		return err
	})
	if err == nil {
		d.ok(took, b.host+" "+b.name+" accepts connections, and gets some")
	}
	return err
}

func (d *meshDemo) load() error {
	d.head("LOAD", fmt.Sprintf("%d connections a second from inside, and as many from outside.", perSecond))
	outside := d.keeper.netns()
	d.loads = []*load{
		{from: d.netns(d.box(shop)), what: "shop on h1, by the address of the service", to: netip.AddrPortFrom(d.vip, 80)},
		{from: outside, what: "outside, by port 8000 of h2", to: netip.AddrPortFrom(address(2), servicePort)},
	}
	for _, l := range d.loads {
		l.begin()
		d.step(green, "✓", "%-44s %s", l.what, l.to)
	}
	return nil
}

func (d *meshDemo) replace() error {
	d.head("REPLACE", "One after the other: the new one comes, then the old one is drained and goes.")
	for i := range replaced {
		if err := d.begin(homeOf(i+1), fresh(i)); err != nil {
			return err
		}
		if err := d.awaitWell(d.box(fresh(i))); err != nil {
			return err
		}
		b := d.box(old(i))
		one, err := d.find(b)
		if err == nil {
			_, err = d.lnctl("service drain web " + one.Container + " --network " + d.network)
		}
		if err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond) // as long as a runtime gives a container to end its requests
		d.stops[b.name]()
		if err := d.cni(b.host, "del", b.name, nil); err != nil {
			return err
		}
		d.boxes = slices.DeleteFunc(d.boxes, func(x box) bool { return x.name == b.name })
		d.step(green, "✓", "%s %s is gone", b.host, b.name)
	}
	return nil
}

func (d *meshDemo) count() error {
	d.head("COUNT", "Which container answered, how many requests failed, and which clients were seen.")
	var errs []error
	for _, l := range d.loads {
		errs = append(errs, l.tell(d.printer))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The hosts are seen, too: they check.
	for what, a := range map[string]netip.Addr{"shop": d.box(shop).addrs[0], "outside": address(9)} {
		if !d.seen[a] {
			errs = append(errs, fmt.Errorf("no container saw %s as %s", what, a))
			continue
		}
		d.step(green, "✓", "%s was seen as %s", what, a)
	}
	return errors.Join(errs...)
}

func (d *meshDemo) end() error {
	d.head("END", "The service goes.")
	for i := range replaced {
		defer d.stops[fresh(i)]()
	}
	_, err := d.lnctl("service rm web --network " + d.network)
	return err
}
