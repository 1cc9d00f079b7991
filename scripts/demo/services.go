package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libnet-cni/libnet/internal/netns"
)

// servicesDemo shows that the containers of a service are replaced under load, and no request
// is lost.
type servicesDemo struct {
	*demo
	vip   netip.Addr
	stops map[string]func()
	loads []*load
}

const (
	replaced    = 5   // containers
	loadClients = 8   // of each load, at once
	perSecond   = 500 // requests of each load
	servicePort = 8000
	network     = "names"
)

// load is what clients at one place ask for.
type load struct {
	from, what string
	to         netip.AddrPort
	stop       chan struct{}
	done       sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int // by container
	took    []time.Duration
	failed  []error
}

// servicesStory tells it all; the first step that fails ends it.
func servicesStory(out *printer, bin, conf string) error {
	runtime, err := newCaller(bin, conf)
	if err != nil {
		return err
	}
	runtime.names = map[string]string{"shop": "shop"}
	if err := build(); err != nil {
		return err
	}
	for i := range replaced {
		for _, id := range []string{old(i), fresh(i)} {
			runtime.names[id] = "web"
			if err := netns.Create(container(id)); err != nil {
				return err
			}
		}
	}
	if err := netns.Create(container("shop")); err != nil {
		return err
	}
	before, err := takeSnapshot()
	if err != nil {
		return err
	}
	d := &servicesDemo{demo: &demo{out, runtime, before}, stops: map[string]func(){}}
	d.printf("Five containers are behind one address, and behind port %d of the host. Each is\n", servicePort)
	d.printf("replaced by another one while clients inside and outside open connections.\n\n")
	d.row("conf", "%s, network %q", filepath.Base(conf), runtime.list.Name)
	for _, chapter := range []func() error{d.add, d.create, d.load, d.replace, d.count, d.end, d.left} {
		if err := chapter(); err != nil {
			return err
		}
	}
	return nil
}

func old(i int) string { return fmt.Sprint("old", i+1) }

func fresh(i int) string { return fmt.Sprint("new", i+1) }

// lnctl calls lnctl and says so.
func (d *servicesDemo) lnctl(args string) (string, error) {
	start := time.Now()
	out, err := exec.Command("./lnctl", strings.Fields(args)...).CombinedOutput()
	said := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("lnctl %s: %w: %s", args, err, said)
	}
	d.ok(time.Since(start), "lnctl "+args)
	return said, nil
}

// start adds a container and has it answer with its name.
func (d *servicesDemo) start(id string) error {
	if err := d.call("ADD", id, "NAME="+d.runtime.names[id]); err != nil {
		return err
	}
	stop, err := serve(container(id), func(netip.Addr) string { return id })
	if err == nil {
		d.stops[id] = stop
	}
	return err
}

func (d *servicesDemo) add() error {
	d.head("ADD", "A client, and five containers of one name.")
	errs := []error{d.start("shop")}
	for i := range replaced {
		errs = append(errs, d.start(old(i)))
	}
	return errors.Join(errs...)
}

func (d *servicesDemo) create() error {
	d.head("SERVICE", "A container that comes gets nothing until it listens: --start-drained.")
	said, err := d.lnctl(fmt.Sprintf("service create web --network %s --select alias=web --port 80 --publish %d:80 --start-drained", network, servicePort))
	if err != nil {
		return err
	}
	if d.vip, err = netip.ParseAddr(said); err != nil {
		return err
	}
	d.row("address", "%s", d.vip)
	for i := range replaced {
		if _, err := d.lnctl("service drain web " + old(i) + " --network " + network + " --undo"); err != nil {
			return err
		}
	}
	return nil
}

func (d *servicesDemo) load() error {
	d.head("LOAD", fmt.Sprintf("%d connections a second from inside, and as many from outside.", perSecond))
	host := uplinks()[0].host.Addr()
	d.loads = []*load{
		{from: container("shop"), what: "shop, by the address of the service", to: netip.AddrPortFrom(d.vip, 80)},
		{from: outside, what: "outside, by the published port", to: netip.AddrPortFrom(host, servicePort)},
	}
	for _, l := range d.loads {
		l.begin()
		d.step(green, "✓", "%-40s %s", l.what, l.to)
	}
	return nil
}

// begin has clients open connections until stop is closed.
func (l *load) begin() {
	l.stop, l.answers = make(chan struct{}), map[string]int{}
	for range loadClients {
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			err := within(l.from, func() error {
				every := time.NewTicker(time.Second * loadClients / perSecond)
				defer every.Stop()
				for {
					select {
					case <-l.stop:
						return nil
					case <-every.C:
						l.ask()
					}
				}
			})
			if err != nil {
				l.note("", 0, err)
			}
		}()
	}
}

func (l *load) ask() {
	start := time.Now()
	c, err := net.DialTimeout("tcp", l.to.String(), 5*time.Second)
	if err != nil {
		l.note("", 0, err)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	name, err := io.ReadAll(c)
	if err == nil && len(name) == 0 {
		err = errors.New("the connection ended without an answer")
	}
	l.note(string(name), time.Since(start), err)
}

func (l *load) note(name string, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.answers[name]++
	l.took = append(l.took, took)
}

func (d *servicesDemo) replace() error {
	d.head("REPLACE", "One after the other: the new one comes, then the old one is drained and goes.")
	for i := range replaced {
		err := d.start(fresh(i))
		for _, args := range []string{"service drain web " + fresh(i) + " --undo", "service drain web " + old(i)} {
			if err == nil {
				_, err = d.lnctl(args + " --network " + network)
			}
		}
		if err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond) // as long as a runtime gives a container to end its requests
		d.stops[old(i)]()
		if err := d.call("DEL", old(i), ""); err != nil {
			return err
		}
	}
	return nil
}

func (d *servicesDemo) count() error {
	d.head("COUNT", "Which container answered, and how many requests failed.")
	var errs []error
	for _, l := range d.loads {
		errs = append(errs, l.tell(d.printer))
	}
	return errors.Join(errs...)
}

// tell ends the load and says what came of it. The error is of requests that failed.
func (l *load) tell(p *printer) (err error) {
	close(l.stop)
	l.done.Wait()
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return fmt.Errorf("%s: no request was answered: %w", l.what, errors.Join(l.failed...))
	}
	mark, colour := "✓", green
	if len(l.failed) > 0 {
		mark, colour = "✗", red
		err = fmt.Errorf("%s: %d requests failed, as: %w", l.what, len(l.failed), l.failed[0])
	}
	p.step(colour, mark, "%s: %d requests, %d failed", l.what, len(l.took)+len(l.failed), len(l.failed))
	p.row("took", "%v at the median, 99%% within %v", l.took[len(l.took)/2].Round(time.Microsecond), l.took[len(l.took)*99/100].Round(time.Microsecond))
	for _, name := range []func(int) string{old, fresh} {
		var each []string
		for i := range replaced {
			each = append(each, fmt.Sprintf("%s %d", name(i), l.answers[name(i)]))
		}
		p.row("", "%s", strings.Join(each, "  "))
	}
	return err
}

func (d *servicesDemo) end() error {
	d.head("DEL", "The service goes, and then its containers.")
	_, err := d.lnctl("service rm web --network " + network)
	errs := []error{err}
	for i := range replaced {
		d.stops[fresh(i)]()
		errs = append(errs, d.call("DEL", fresh(i), ""))
	}
	d.stops["shop"]()
	return errors.Join(append(errs, d.call("DEL", "shop", ""), d.call("GC", "", ""))...)
}
