package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// without drops the containers of a host.
func (f *fabric) without(host string) {
	f.boxes = slices.DeleteFunc(f.boxes, func(b box) bool { return b.host == host })
}

func (f *fabric) replace() error {
	f.head("CRASH", "h3 is gone, and all that ran there. Another machine comes in its place.")
	f.hosts["h3"].crash()
	f.without("h3")
	f.step(bold, "!", "h3 is killed.")
	if err := f.visitAll(); err != nil {
		return err
	}
	f.row("", "Its block stays its own: --block-ttl, 24 h, has not passed.")
	start := time.Now()
	if err := f.addHost("h3", address(3)); err != nil {
		return err
	}
	if _, err := until(func() error { return f.cni("h3", "status", "", nil) }); err != nil {
		return err
	}
	f.ok(time.Since(start), "h3 is there again, by name and address; waited for --live-ttl")
	if err := f.addBox("h3", "c4"); err != nil {
		return err
	}
	return f.visitAll()
}

func (f *fabric) withoutEtcd() error {
	f.head("NO ETCD", "etcd is stopped. Running containers go on, and more are started.")
	_ = f.etcd.Process.Signal(unix.SIGKILL)
	_ = f.etcd.Wait()
	if _, err := f.etcdctl("endpoint", "health"); err == nil {
		return errors.New("etcd answers still")
	}
	f.step(bold, "!", "etcd is killed: etcdctl endpoint health fails.")
	if err := f.visitAll(); err != nil {
		return err
	}
	if err := f.addBox("h1", "c5"); err != nil {
		return err
	}
	agent := f.agents["h2"]
	_ = agent.Process.Signal(unix.SIGKILL)
	_ = agent.Wait()
	f.step(bold, "!", "ln-agent of h2 is killed, too, and started again.")
	if err := f.startAgent("h2"); err != nil {
		return err
	}
	if err := f.addBox("h2", "c6"); err != nil {
		return err
	}
	return f.visitAll()
}

func (f *fabric) back() error {
	f.head("BACK", "etcd is started again. The agents connect by themselves.")
	if err := f.startEtcd(); err != nil {
		return err
	}
	took, err := until(func() error {
		out, err := f.etcdctl("get", "--prefix", "--keys-only", "/libnet/v1/live/nodes/")
		if n := len(strings.Fields(out)); err == nil && n != 3 {
			err = fmt.Errorf("%d of 3 hosts are there", n)
		}
		return err
	})
	if err != nil {
		return err
	}
	f.ok(took, "all three hosts are in etcd again")
	for _, host := range []string{"h1", "h2", "h3"} {
		if err := f.ready(host, 2); err != nil {
			return err
		}
	}
	return f.tellBlocks()
}

func (f *fabric) leave() error {
	f.head("LEAVE", "Containers go, agents stop, and hosts give their blocks back.")
	for _, b := range f.boxes {
		if err := f.cni(b.host, "del", b.name, nil); err != nil {
			return err
		}
	}
	for _, host := range []string{"h1", "h2", "h3"} {
		agent := f.agents[host]
		_ = agent.Process.Signal(unix.SIGTERM)
		if err := agent.Wait(); err != nil {
			return fmt.Errorf("ln-agent of %s: %w", host, err)
		}
		start := time.Now()
		if _, err := f.hosts[host].do(nil, "ln-agent", "leave", "--endpoints", etcdURL, "--conf-dir", machineConf); err != nil {
			return err
		}
		f.ok(time.Since(start), host+"      ln-agent leave")
	}
	left, err := f.etcdctl("get", "--prefix", "--keys-only", "/")
	if err == nil && strings.TrimSpace(left) != "" {
		err = fmt.Errorf("etcd holds:\n%s", left)
	}
	if err == nil {
		f.step(green, "✓", "etcd holds no key.")
	}
	return err
}
