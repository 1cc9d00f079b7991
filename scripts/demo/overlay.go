package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fabric is the hosts of the overlay story, and the machine that has etcd.
type fabric struct {
	*printer
	programs []string
	conf     []byte
	confFile string
	network  string
	hosts    map[string]*machine
	agents   map[string]*exec.Cmd
	keeper   *machine // of etcd
	etcd     *exec.Cmd
	boxes    []box
	args     map[string]string // CNI_ARGS, by container
}

// box is a container of the story.
type box struct {
	host, name string
	addrs      []netip.Addr
}

const (
	liveTTL = 3 * time.Second // short, so that the reader need not wait
	patient = 20 * time.Second
)

func address(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }

const etcdURL = "http://192.0.2.9:2379"

// overlayStory tells of three hosts; the first step that fails ends it.
func overlayStory(out *printer, bin, tools, conf string) error {
	f := &fabric{printer: out, confFile: filepath.Base(conf), hosts: map[string]*machine{}, agents: map[string]*exec.Cmd{}}
	if err := f.prepare(bin, tools, conf); err != nil {
		return err
	}
	f.printf("Three hosts and their containers on one network. No file lists the hosts: ln-agent\n")
	f.printf("on each finds the others by etcd. All of them are namespaces of this demo.\n\n")
	f.row("conf", "%s on every host, network %q, plugin overlay-ln", f.confFile, f.network)
	f.row("hosts", "h1 192.0.2.1, h2 192.0.2.2, h3 192.0.2.3, and etcd on a machine of its own")
	for _, chapter := range []func() error{f.start, f.add, f.reach, f.replace, f.withoutEtcd, f.back, f.leave} {
		if err := chapter(); err != nil {
			return f.explain(err)
		}
	}
	return nil
}

// prepare reads what there is and makes the link that the machines are on.
func (f *fabric) prepare(bin, tools, conf string) (err error) {
	if f.conf, err = os.ReadFile(conf); err != nil {
		return err
	}
	var list struct{ Name string }
	if err := json.Unmarshal(f.conf, &list); err != nil {
		return fmt.Errorf("%s: %w", conf, err)
	}
	f.network = list.Name
	for _, p := range []string{bin + "/overlay-ln", bin + "/ln-agent", bin + "/lnctl", tools + "/cnitool", tools + "/etcd", tools + "/etcdctl"} {
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		f.programs = append(f.programs, abs)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "lan"
	lan := &netlink.Bridge{LinkAttrs: attrs}
	return errors.Join(netlink.LinkAdd(lan), netlink.LinkSetUp(lan))
}

// explain adds what the agents logged last.
func (f *fabric) explain(err error) error {
	for name, m := range f.hosts {
		log, readErr := os.ReadFile(m.path("/run/ln-agent.log"))
		if lines := strings.Split(strings.TrimSpace(string(log)), "\n"); readErr == nil {
			err = fmt.Errorf("%w\n    ln-agent of %s: %s", err, name, strings.Join(lines[max(0, len(lines)-4):], "\n      "))
		}
	}
	return err
}

func (f *fabric) start() error {
	f.head("AGENTS", "etcd, then ln-agent on each host. Each takes a block of the subnets.")
	var err error
	if f.keeper, err = boot("etcd", address(9), f.programs...); err != nil {
		return err
	}
	if err := f.startEtcd(); err != nil {
		return err
	}
	for i, name := range []string{"h1", "h2", "h3"} {
		if err := f.addHost(name, address(byte(i+1))); err != nil {
			return err
		}
	}
	for _, name := range []string{"h1", "h2", "h3"} {
		if err := f.ready(name, 2); err != nil {
			return err
		}
	}
	return f.tellBlocks()
}

func (f *fabric) startEtcd() error {
	start := time.Now()
	var err error
	f.etcd, err = f.keeper.daemon("etcd", "--data-dir=/run/data", "--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL, "--log-level=error")
	if err != nil {
		return err
	}
	if _, err := until(func() error { _, err := f.etcdctl("endpoint", "health"); return err }); err != nil {
		return err
	}
	f.ok(time.Since(start), "etcd    serves "+etcdURL)
	return nil
}

func (f *fabric) etcdctl(args ...string) (string, error) {
	out, err := f.keeper.do(nil, "etcdctl", append([]string{"--endpoints", etcdURL, "--command-timeout=1s"}, args...)...)
	return string(out), err
}

// addHost boots a host with the configuration, and its agent.
func (f *fabric) addHost(name string, addr netip.Addr) error {
	m, err := boot(name, addr, f.programs...)
	if err != nil {
		return err
	}
	f.hosts[name] = m
	if err := os.WriteFile(m.path(machineConf+"/"+f.confFile), f.conf, 0o600); err != nil {
		return err
	}
	return f.startAgent(name)
}

func (f *fabric) startAgent(name string) (err error) {
	f.agents[name], err = f.hosts[name].daemon("ln-agent", "--endpoints", etcdURL, "--conf-dir", machineConf, "--live-ttl", liveTTL.String())
	return err
}

// nodes are those of the node file on a host.
type nodes struct {
	Blocks []netip.Prefix
	Nodes  []struct {
		Name   string
		Blocks []netip.Prefix
	}
}

func (f *fabric) nodes(host string) (n nodes, err error) {
	data, err := os.ReadFile(f.hosts[host].path("/run/libnet/overlay/" + f.network + ".json"))
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	return n, err
}

// ready waits until a host knows so many others.
func (f *fabric) ready(host string, others int) error {
	took, err := until(func() error {
		n, err := f.nodes(host)
		if err == nil && len(n.Nodes) != others+1 {
			err = fmt.Errorf("%s knows %d other hosts, want %d", host, len(n.Nodes)-1, others)
		}
		if err != nil {
			return err
		}
		return f.cni(host, "status", "", nil)
	})
	if err == nil {
		f.ok(took, fmt.Sprintf("%-7s reaches %d other hosts", host, others))
	}
	return err
}

func (f *fabric) tellBlocks() error {
	prefix := "/libnet/v1/networks/" + f.network + "/blocks/"
	out, err := f.etcdctl("get", "--prefix", prefix)
	lines := strings.Fields(out)
	f.row("etcdctl", "get --prefix %s", prefix)
	for i := 0; i+1 < len(lines); i += 2 {
		f.row("", "%-22s %s", strings.TrimPrefix(lines[i], prefix), f.paint(faint, lines[i+1]))
	}
	return err
}

// cni has cnitool call the plugins on a host.
func (f *fabric) cni(host, verb, name string, result *types100.Result) error {
	out, err := f.hosts[host].do([]string{"CNI_PATH=" + machineBin, "NETCONFPATH=" + machineConf, "CNI_ARGS=" + f.args[name]}, "cnitool", verb, f.network, "/run/netns/"+name)
	if err == nil && result != nil {
		err = json.Unmarshal(out, result)
	}
	return err
}

func (f *fabric) add() error {
	f.head("ADD", "cnitool starts overlay-ln, which asks no server: its block is in a file.")
	return errors.Join(f.addBox("h1", "c1"), f.addBox("h2", "c2"), f.addBox("h3", "c3"))
}

func (f *fabric) addBox(host, name string) error {
	if err := f.hosts[host].makeContainer(name); err != nil {
		return err
	}
	start := time.Now()
	var result types100.Result
	if err := f.cni(host, "add", name, &result); err != nil {
		return err
	}
	b := box{host: host, name: name}
	var addrs []string
	for _, ip := range result.IPs {
		b.addrs = append(b.addrs, addrOf(ip.Address.IP))
		addrs = append(addrs, ip.Address.String())
	}
	f.boxes = append(f.boxes, b)
	f.ok(time.Since(start), fmt.Sprintf("%s %s  %s", host, name, strings.Join(addrs, "  ")))
	return nil
}

func (f *fabric) netns(b box) string { return f.hosts[b.host].container(b.name) }

func (f *fabric) reach() error {
	f.head("REACH", "ping and TCP, IPv4 and IPv6, between all on different hosts. No address changes.")
	return f.visitAll()
}

// visitAll has all containers ping, and connect to, all on other hosts, by all
// addresses, and wants their own address to be seen there.
func (f *fabric) visitAll() error {
	for _, to := range f.boxes {
		stop, err := serve(f.netns(to), netip.Addr.String)
		if err != nil {
			return err
		}
		err = f.visit(to)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// visit tells how long the slowest ping took.
func (f *fabric) visit(to box) error {
	var slowest time.Duration
	var visitors []string
	for _, from := range f.boxes {
		if from.host == to.host {
			continue
		}
		visitors = append(visitors, from.host+" "+from.name)
		for i, a := range to.addrs {
			took, seen, err := ping(f.netns(from), f.netns(to), a)
			if err != nil {
				return fmt.Errorf("ping from %s to %s, %s: %w", from.name, to.name, a, err)
			}
			_, tcpSeen, err := dial(f.netns(from), netip.AddrPortFrom(a, webPort))
			if err != nil {
				return fmt.Errorf("TCP from %s to %s, %s: %w", from.name, to.name, a, err)
			}
			if seen != from.addrs[i] || tcpSeen != from.addrs[i] {
				return fmt.Errorf("%s sees %s by ping and %s by TCP, want %s", to.name, seen, tcpSeen, from.addrs[i])
			}
			slowest = max(slowest, took)
		}
	}
	f.ok(slowest, fmt.Sprintf("%s %s  reached from %s", to.host, to.name, strings.Join(visitors, ", ")))
	return nil
}
