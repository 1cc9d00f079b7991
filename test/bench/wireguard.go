package main

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const secureText = `As *Between hosts*, and beside it the same network with ` + "`\"encryption\": \"wireguard\"`" + `. *flannel's settings* are its WireGuard device made by hand: MTU 1420, no
keepalive, a route to the other host's subnet, a bridge with the container, no rules. On a kernel without WireGuard both are of wireguard-go.
`

// wireguards compares encrypted networks with what they stand on, and with a device by hand.
func wireguards(r *report, n int) error {
	labs, err := newSecure()
	if err != nil {
		return err
	}
	rounds := max(min(n, 8), n/4)
	order := append([]*lab{}, labs...)
	for range rounds {
		mathrand.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, l := range order {
			if err := l.measure(throughTunnel); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	r.print("\n## Encrypted, between hosts\n\n" + secureText)
	under, hand, ours := labs[0].got[throughTunnel], labs[2].got[throughTunnel], labs[3].got[throughTunnel]
	t := &table{columns: []string{"", "stream Gbit/s", "±", "/ underlay", "packets/s", "±", "/ underlay", "round trip µs p50", "p99", "p50 / underlay"}}
	for _, l := range labs {
		t.row(l.figureCells(throughTunnel, under)...)
	}
	t.row("encrypted / by hand", "", "", short(median(ours.stream)/median(hand.stream)), "", "", short(median(ours.packets)/median(hand.packets)),
		"", short(ratio(ours.trip, hand.trip, 99)), short(ratio(ours.trip, hand.trip, 50)))
	t.print(r, fmt.Sprintf("%s, %d times", throughTunnel, rounds))
	packetTargets(r, throughTunnel, labs[2].name, ours, hand)
	var worlds []*world
	for _, l := range labs {
		worlds = append(worlds, l.w)
	}
	return errors.Join(closeAll(worlds), manySecure(r, max(1, n/10)))
}

func newSecure() ([]*lab, error) {
	return newLabs(way{"WireGuard by hand, flannel's settings", (*lab).secureByHand}, way{"overlay-ln, encrypted", (*lab).secureByPlugin})
}

// keyPair is one of WireGuard.
type keyPair struct{ private, public []byte }

func newKeyPair() (keyPair, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{k.Bytes(), k.PublicKey().Bytes()}, nil
}

func newKeyPairs() (all [2]keyPair, err error) {
	for i := range all {
		if all[i], err = newKeyPair(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// secureByHand joins a container of each host by WireGuard and bridges.
func (l *lab) secureByHand() error {
	keys, err := newKeyPairs()
	if err != nil {
		return err
	}
	hosts := []string{near, far}
	return l.eachHost(func(i int, netns string) error {
		block := func(i int) string { return fmt.Sprintf("10.80.%d", i) }
		addr := block(i) + ".2"
		[]*place{&l.a, &l.b}[i].addr = addr
		settings := fmt.Sprintf("private_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s:51820\nallowed_ip=%s.0/24\n\n",
			hex.EncodeToString(keys[i].private), hex.EncodeToString(keys[1-i].public), hosts[1-i], block(1-i))
		if err := serveByHand(settings); err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			ip("addr", "add", block(i)+".0/32", "dev", "flannel-wg"), setUp("flannel-wg"), ip("route", "add", block(1-i)+".0/24", "dev", "flannel-wg"),
			ip("link", "add", "bench0", "mtu", "1420", "type", "bridge"), ip("addr", "add", block(i)+".1/24", "dev", "bench0"), setUp("bench0"),
			connect("port", "", netns, "eth0", addr+"/24"), ip("link", "set", "port", "master", "bench0"),
			ip("-n", fmt.Sprint("lab", i), "link", "set", "eth0", "mtu", "1420"),
			ip("-n", fmt.Sprint("lab", i), "route", "add", "default", "via", block(i)+".1"))
	})
}

// serveByHand starts a process that has flannel-wg, and waits until that is up.
func serveByHand(settings string) error {
	cmd := exec.Command(tool("wghand"), "flannel-wg")
	cmd.Stdin, cmd.Stderr = strings.NewReader(settings), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	return err
}

// secureByPlugin joins them by overlay-ln with encryption.
func (l *lab) secureByPlugin() error {
	keys, err := newKeyPairs()
	if err != nil {
		return err
	}
	hosts := []string{near, far}
	var nodes []string
	for i, k := range keys {
		nodes = append(nodes, fmt.Sprintf(`{"address":%q,"publicKey":%q}`, hosts[i], base64.StdEncoding.EncodeToString(k.public)))
	}
	err = l.eachHost(func(i int, netns string) error {
		dir := fmt.Sprintf("/run/secure-%d", i)
		conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"secure","plugins":[{"type":"overlay-ln","bridge":"bench0","encryption":"wireguard","privateKeyFile":"%[1]s/key",
			"nodes":[%[2]s],"subnet":"10.64.0.0/10","stateDir":"%[1]s/state","ipam":{"type":"ipam-ln","dataDir":"%[1]s/leases"}}]}`, dir, strings.Join(nodes, ","))
		if err := errors.Join(os.MkdirAll(dir+"/conf", 0o700), os.WriteFile(dir+"/conf/secure.conflist", []byte(conf), 0o600),
			os.WriteFile(dir+"/key", []byte(base64.StdEncoding.EncodeToString(keys[i].private)+"\n"), 0o600)); err != nil {
			return err
		}
		if err := serveSecure(dir); err != nil {
			return err
		}
		c := &chain{name: l.name, w: l.w, cni: newCNI(execer())}
		if err := c.configure(conf); err != nil {
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

// serveSecure runs wireguard-go on a host whose kernel has no WireGuard.
func serveSecure(dir string) error {
	if ip("link", "add", "probe", "type", "wireguard") == nil {
		return ip("link", "del", "probe")
	}
	cmd := exec.Command(filepath.Join(os.Getenv("BIN"), "ln-agent"), "wireguard", "--conf-dir", dir+"/conf", "--state-dir", dir+"/state")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range all {
			if strings.HasPrefix(i.Name, "wg-") {
				return nil
			}
		}
	}
	return fmt.Errorf("no wireguard-go in %s", patience)
}

// manySecure has an agent meet a thousand hosts of an encrypted network.
func manySecure(r *report, n int) error {
	out, err := benchmark("WireGuardMany", n)
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", "measured"}}
	for _, m := range []struct{ unit, what, as string }{
		{"ms-cold", "ln-agent, from cold to 1000 peers and their routes", "ms"},
		{"ms-changed", "1000 peers of the second device, from the last new key on", "ms"},
		{"MiB-agent", "ln-agent, memory", "MiB"}, {"MiB-wireguard-go", "wireguard-go with two devices of 1000 peers, memory", "MiB"},
	} {
		x, err := metric(out, m.unit)
		if err != nil {
			return fmt.Errorf("%w in: %s", err, out)
		}
		t.row(m.what, fmt.Sprintf("%.4g %s", x, m.as))
	}
	t.print(r, fmt.Sprintf("a thousand hosts made up in a real etcd, the mean of %d times", n))
	return nil
}
