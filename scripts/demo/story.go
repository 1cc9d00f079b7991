package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/libnet-cni/libnet/internal/cni"
)

// demo is what the chapters of the story share.
type demo struct {
	*printer
	runtime *caller
	before  snapshot
}

// story tells it all; the first step that fails ends it.
func story(out *printer, bin, conf string) error {
	runtime, err := newCaller(bin, conf)
	if err != nil {
		return err
	}
	if err := build(); err != nil {
		return err
	}
	before, err := takeSnapshot()
	if err != nil {
		return err
	}
	d := &demo{out, runtime, before}
	d.printf("Two containers get a network, use it, and leave nothing behind. They, their host\n")
	d.printf("and the outside are namespaces of this demo; nothing of the machine is touched.\n\n")
	d.row("conf", "%s, network %q, plugin %s", filepath.Base(conf), runtime.list.Name, runtime.list.Plugins[0]["type"])
	for _, u := range uplinks() {
		d.row("uplink", "%-14s → outside %-14s MTU %d", u.host, u.outside, uplinkMTU)
	}
	for _, chapter := range []func() error{d.status, d.add, d.host, d.ping, d.port, d.check, d.del, d.left} {
		if err := chapter(); err != nil {
			return err
		}
	}
	return nil
}

// call does a verb and says so.
func (d *demo) call(verb, id, remark string) error {
	took, err := d.runtime.do(verb, id)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(verb+" "+id), err)
	}
	d.ok(took, fmt.Sprintf("%-6s %-2s %s", verb, id, remark))
	return nil
}

func (d *demo) status() error {
	d.head("STATUS", "Could a container be connected now?")
	return d.call("STATUS", "", "yes")
}

func (d *demo) add() error {
	d.head("ADD", "The runtime starts the plugin with a few variables, the conf on its stdin.")
	for _, id := range []string{"c1", "c2"} {
		if err := d.call("ADD", id, "CNI_NETNS="+container(id)+" CNI_IFNAME=eth0"); err != nil {
			return err
		}
		if err := within(container(id), d.container); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) host() error {
	d.head("HOST", "The ADDs made this on the host. Each thing carries its owner's name.")
	if err := errors.Join(d.bridges(), d.masquerade()); err != nil {
		return err
	}
	dir := "/var/lib/cni/networks/" + d.runtime.list.Name
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err == nil {
			d.row("lease", "%s/%s", dir, f.Name())
		}
	}
	return err
}

// ping wants every address to answer, and the source address not to change
// but on the way out.
func (d *demo) ping() error {
	d.head("PING", "ICMP echo from c1, and the source address that the other side sees.")
	c1, c2 := d.runtime.results["c1"], d.runtime.results["c2"]
	for i, u := range uplinks() {
		own := addrOf(c1.IPs[i].Address.IP)
		for _, p := range []struct {
			name, at, why string
			to, want      netip.Addr
		}{
			{"c2", container("c2"), "", addrOf(c2.IPs[i].Address.IP), own},
			{"gateway", hostNetns, "", addrOf(c1.IPs[i].Gateway), own},
			{"outside", outside, "the host's: masqueraded", u.outside.Addr(), u.host.Addr()},
		} {
			took, seen, err := ping(container("c1"), p.at, p.to)
			if err == nil && seen != p.want {
				err = fmt.Errorf("the source address is %s, want %s", seen, p.want)
			}
			if err != nil {
				return fmt.Errorf("ping %s, %s: %w", p.name, p.to, err)
			}
			d.ok(took, fmt.Sprintf("%-8s %-11s sees %-11s %s", p.name, p.to, seen, p.why))
		}
	}
	return nil
}

// port has a server in c1, and clients that come by the published port; one
// that comes directly is to get no answer.
func (d *demo) port() error {
	d.head("PORT", fmt.Sprintf("TCP to port %d of the host, which is port %d of %s.", hostPort, webPort, publisher))
	stop, err := serve(container(publisher), netip.Addr.String)
	if err != nil {
		return err
	}
	defer stop()
	own := d.runtime.results[publisher]
	for i, u := range uplinks() {
		bridge := addrOf(own.IPs[i].Gateway)
		published := netip.AddrPortFrom(u.host.Addr(), hostPort)
		for _, p := range []struct {
			name, from, why string
			to              netip.AddrPort
			want            netip.Addr
		}{
			{"outside", outside, "client's address is seen", published, u.outside.Addr()},
			{"host", hostNetns, "", published, u.host.Addr()},
			{"c1", container("c1"), "itself", published, bridge},
		} {
			took, seen, err := dial(p.from, p.to)
			if err == nil && seen != p.want {
				err = fmt.Errorf("the source address is %s, want %s", seen, p.want)
			}
			if err != nil {
				return fmt.Errorf("%s to %s: %w", p.name, p.to, err)
			}
			d.ok(took, fmt.Sprintf("%-8s %-18s sees %-11s %s", p.name, p.to, seen, p.why))
		}
		direct := netip.AddrPortFrom(addrOf(own.IPs[i].Address.IP), webPort)
		if _, seen, err := dial(outside, direct); err == nil {
			return fmt.Errorf("outside reaches %s directly, as %s: gatewayMode nat does not hold", direct, seen)
		}
		d.step(green, "✓", "%-8s %-18s no answer: gatewayMode nat", "outside", direct)
	}
	return nil
}

func (d *demo) check() error {
	d.head("CHECK", "Is everything still as ADD made it?")
	if err := errors.Join(d.call("CHECK", "c1", "yes"), d.call("CHECK", "c2", "yes")); err != nil {
		return err
	}
	lost := &d.runtime.results["c1"].IPs[0].Address
	err := within(container("c1"), func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth0, &netlink.Addr{IPNet: lost})
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", lost, err)
	}
	d.step(bold, "!", "The operator deletes %s in c1.", lost)
	took, err := d.runtime.do("CHECK", "c1")
	var said *types.Error
	if !errors.As(err, &said) || said.Code != cni.CodeDifferent {
		return fmt.Errorf("CHECK c1: %w, want an error of code %d", err, cni.CodeDifferent)
	}
	d.ok(took, fmt.Sprintf("CHECK  c1 no, error code %d:", said.Code))
	_, differs, _ := strings.Cut(said.Msg, fmt.Sprintf("%q: ", d.runtime.list.Name))
	for _, line := range strings.Split(differs, "\n") {
		d.row("", "%s", line)
	}
	return nil
}

func (d *demo) del() error {
	d.head("DEL", "Whole or not, everything goes. An attachment that is gone already is no error.")
	for _, c := range []struct{ verb, id, remark string }{
		{"DEL", "c1", ""}, {"DEL", "c2", ""}, {"DEL", "c1", "again"},
		{"GC", "", "of a list of living containers that is empty"},
	} {
		if err := d.call(c.verb, c.id, c.remark); err != nil {
			return err
		}
	}
	return nil
}

// kept says that a file is one the pool has for itself: its lock, the address
// given last, and the index, which is made anew from the leases if it is lost; or
// a lock that all networks or containers share.
func kept(line string) bool {
	if line == "+ files /run/libnet/addresses" || line == "+ files /run/libnet/ports/lock" {
		return true
	}
	name, inPool := strings.CutPrefix(line, "+ files /var/lib/cni/networks/")
	base := filepath.Base(name)
	return inPool && (strings.HasPrefix(name, ".libnet/") || base == "lock" || strings.HasPrefix(base, "last_reserved_ip."))
}

func (d *demo) left() error {
	d.head("LEFT", "The host and both containers, before ADD and now.")
	after, err := takeSnapshot()
	if err != nil {
		return err
	}
	keep := 0
	var left []string
	for _, line := range d.before.diff(after) {
		if kept(line) {
			keep++
		} else {
			left = append(left, line)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("not as before:\n    %s", strings.Join(left, "\n    "))
	}
	d.step(green, "✓", "No difference in %s.", d.before)
	d.row("", "Kept by design: forwarding stays on, as others may need it, and pool")
	d.row("", "and networks have %d files of their own (locks, index, the addresses given last).", keep)
	return nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
