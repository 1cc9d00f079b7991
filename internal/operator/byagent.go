package operator

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// MakeKey writes a new private key of WireGuard to a file that is not there yet, and returns
// the public key. Only the user of this process can read the file from its first moment on.
func MakeKey(path string) (public wireguard.Key, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return public, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:forbidigo // of lnctl alone
	if errors.Is(err, os.ErrExist) {
		return public, fmt.Errorf("%s is there already: a key is not replaced; lnctl overlay pubkey prints its public key", path)
	}
	if err != nil {
		return public, err
	}
	_, err = f.WriteString(wireguard.Key(wireguard.Clamp([32]byte(key.Bytes()))).String() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return public, errors.Join(err, os.Remove(path))
	}
	return wireguard.Key(key.PublicKey().Bytes()), nil
}

// PublicKey returns the public key of the private key in a file. The error is a
// *wireguard.KeyFileError.
func PublicKey(path string) (public wireguard.Key, err error) {
	private, err := wireguard.ReadKeyFile(path)
	if err != nil {
		return public, err
	}
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return public, err
	}
	return wireguard.Key(key.PublicKey().Bytes()), nil
}

// checkKeys looks whether the keys of encrypted networks fit: the private key of this host and
// what the others know it by, and those of the others, by what came of them.
func (s survey) checkKeys() []Finding {
	const about = "encryption"
	looked := 0
	var all []Finding
	for _, n := range s.networks {
		now := *n.Plan()
		if !now.Config.Tunnel.Encrypted() {
			continue
		}
		looked++
		if now.Config.Tunnel.Agent {
			f, err := s.o.NodeFile(n.Name())
			if err != nil {
				all = append(all, Finding{about, fmt.Sprintf("network %q: %s", n.Name(), oneLine(err)), "see that ln-agent runs, and what its log says"})
				continue
			}
			now.Config = f.Apply(now.Config)
		}
		for i, t := range now.Tunnels() {
			all = append(all, s.o.checkOwnKey(&now, i, t)...)
			all = append(all, s.o.checkHandshakes(&now, t)...)
		}
	}
	if looked == 0 {
		return nil
	}
	return orWell(all, about, looked)
}

// checkOwnKey compares the key file of the device i with what the other hosts know this one by.
// Whether the device has that key CHECK looks at.
func (o *Operator) checkOwnKey(n *plan.Network, i int, t tunnel.Tunnel) []Finding {
	c := n.Config.Tunnel
	path, advice := c.PrivateKeyFile, fmt.Sprintf("have privateKeyFile name the right file, or give nodes this publicKey of %s on every host", c.Self)
	if c.Agent {
		path, advice = wireguard.KeyPath(o.StateDir, n.Name, c.Epochs[i]), "ln-agent tells the other hosts of the key that is there: see that it runs, and what its log says"
	}
	public, err := PublicKey(path)
	switch {
	case err != nil:
		return []Finding{{"encryption", fmt.Sprintf("network %q: %s", n.Name, oneLine(err)), "put the key back, or make one by lnctl overlay keygen; with ln-agent, see that it runs"}}
	case !t.Secure.PublicKey.IsZero() && public != t.Secure.PublicKey:
		return []Finding{{"encryption", fmt.Sprintf("network %q: the private key in %s is that of %s, and the other hosts know this one by %s", n.Name, path, public, t.Secure.PublicKey), advice}}
	}
	return nil
}

// checkHandshakes names the hosts of which no packet could be read. Without an agent nothing is
// sent while there is nothing to say, so that only a first handshake tells.
func (o *Operator) checkHandshakes(n *plan.Network, t tunnel.Tunnel) (all []Finding) {
	have, err := o.kernel.Tunnels().SecureState(t.Name, wireguard.SocketPath(o.StateDir, t.Name))
	if err != nil {
		return nil // without a device CHECK tells
	}
	used := map[wireguard.Key]bool{}
	for _, node := range n.Config.Tunnel.Nodes {
		used[node.PublicKey], used[node.KeyOf(node.Epoch).PublicKey] = true, true
	}
	for _, p := range have.Peers {
		ended := n.Config.Tunnel.Agent && time.Since(time.Unix(p.Handshake, 0)) > overlay.SessionEnds
		if !used[p.PublicKey] || p.Handshake != 0 && !ended || p.Sent == 0 {
			continue
		}
		all = append(all, Finding{"encryption", fmt.Sprintf("network %q: %d bytes were sent to %s, and no handshake came of it", n.Name, p.Sent, p.Endpoint),
			fmt.Sprintf("on %s, see that the network is there and lnctl overlay pubkey prints %s; let UDP port %d through both ways", p.Endpoint.Addr(), p.PublicKey, p.Endpoint.Port())})
	}
	return all
}

// askPatience is how long ln-agent may take for an answer, beside what it is asked to wait.
const askPatience = 10 * time.Second

// request and answer are those of package agent, which has the other end.
type request struct {
	Do, Network, Node string
	Wait              time.Duration
	Service           *service.Request
}

type answer struct {
	Error   string
	Epoch   int
	Service *service.Shared
}

// RotateKeys has the ln-agent of this host begin a new epoch of keys of a network, which it
// returns, and waits until all hosts have followed, but not longer than wait; 0: not at all.
func (o *Operator) RotateKeys(network string, wait time.Duration) (epoch int, err error) {
	a, err := o.ask(request{Do: "rotate-keys", Network: network, Wait: wait})
	return a.Epoch, err
}

// Evict has the ln-agent of this host have all hosts leave a node out of all networks. Admit takes
// that back.
func (o *Operator) Evict(node string) error {
	_, err := o.ask(request{Do: "evict", Node: node})
	return err
}

// Admit takes back Evict.
func (o *Operator) Admit(node string) error {
	_, err := o.ask(request{Do: "admit", Node: node})
	return err
}

func (o *Operator) ask(r request) (a answer, err error) {
	path := filepath.Join(o.StateDir, "overlay", "agent.sock")
	c, err := net.Dial("unix", path)
	if err != nil {
		return a, fmt.Errorf("ln-agent of this host does not answer: see that it runs with --state-dir %s: %w", o.StateDir, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	line, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	if err := c.SetDeadline(time.Now().Add(r.Wait + askPatience)); err != nil {
		return a, err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return a, fmt.Errorf("ask ln-agent: %w", err)
	}
	line, err = bufio.NewReader(c).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		return a, fmt.Errorf("ask ln-agent: no whole answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// KeyedNetworks are the encrypted networks that ln-agent keeps on this host. It is an error if there is
// none.
func (o *Operator) KeyedNetworks() ([]string, error) {
	names, err := o.NodeFiles()
	errs := []error{err}
	var all []string
	for _, name := range names {
		f, err := o.NodeFile(name)
		if err == nil && f.Encryption != "" {
			all = append(all, name)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil || len(all) > 0 {
		return all, err
	}
	return nil, errors.New("ln-agent keeps no encrypted network on this host")
}

// spans says whether the ln-agent of this host keeps a network: its services are those of all
// its hosts.
func (o *Operator) spans(network string) bool {
	f, err := o.NodeFile(network)
	return err == nil && len(f.Nodes) > 0
}

// isShared says whether a service is that of all hosts of its network. One that this host does
// not have yet may be.
func (o *Operator) isShared(ctx context.Context, network, name string) bool {
	found, err := o.Services().Look(ctx, network, name)
	if errors.Is(err, balancer.ErrNotFound) {
		return o.spans(network)
	}
	return err == nil && found.Shared
}

func sharedNamed(network, name string) service.Shared {
	return service.Shared{Service: service.Service{Network: network, Name: name}}
}

func (o *Operator) askService(do string, r service.Request) (service.Shared, error) {
	a, err := o.ask(request{Do: do, Service: &r})
	if err == nil && a.Service == nil {
		err = errors.New("ln-agent of this host knows no services: is it older than lnctl?")
	}
	if err != nil {
		return service.Shared{}, err
	}
	return *a.Service, nil
}

// createShared has ln-agent make a service of a network that spans hosts.
func (o *Operator) createShared(ctx context.Context, def service.Service, vip VIP) (service.Service, error) {
	if _, err := o.Services().Look(ctx, def.Network, def.Name); !errors.Is(err, balancer.ErrNotFound) {
		return def, errors.Join(err, fmt.Errorf("%w: %q on network %q", balancer.ErrExists, def.Name, def.Network))
	}
	def.VIPs = vip.Addrs
	made, err := o.askService(service.DoCreate, service.Request{Shared: service.Shared{Service: def}, Auto: vip.Auto})
	return made.Service, err
}

// updateTries bounds how often another host may be faster.
const updateTries = 20

func (o *Operator) updateShared(network, name string, fn func(*service.Service) error) error {
	var err error
	for range updateTries {
		now, readErr := o.askService(service.DoRead, service.Request{Shared: sharedNamed(network, name)})
		if readErr != nil {
			return readErr
		}
		before := now.Service
		if err := fn(&now.Service); err != nil {
			return err
		}
		now.Network, now.Name, now.Select, now.VIPs, now.Shared = before.Network, before.Name, before.Select, before.VIPs, true
		if err := now.Check(); err != nil {
			return err
		}
		_, err = o.askService(service.DoPut, service.Request{Shared: now})
		if err == nil || !strings.Contains(err.Error(), overlay.ErrTaken.Error()) {
			return err
		}
	}
	return err
}
