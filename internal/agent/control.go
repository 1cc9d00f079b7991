package agent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/mesh"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/returnpath"
	"github.com/libnet-cni/libnet/internal/service"
)

// ControlPath is the socket at which ln-agent answers lnctl. Only root reaches it.
func ControlPath(stateDir string) string { return filepath.Join(stateDir, "overlay", "agent.sock") }

// request is what lnctl asks for, a line of JSON; package operator has the other end.
type request struct {
	Do      string        // "rotate-keys", "evict", "admit", or one of package service
	Network string        // of rotate-keys
	Node    string        // of evict and admit
	Wait    time.Duration // for all hosts to follow; 0: none
	Service *service.Request
}

// answer is a line of JSON, too.
type answer struct {
	Error   string
	Epoch   int // that rotate-keys began
	Service *service.Shared
}

// controlLoop answers lnctl.
func (a *Agent) controlLoop(ctx context.Context) error {
	path := ControlPath(a.conf.StateDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an agent that was killed
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen for lnctl: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	var g errgroup.Group
	for {
		c, err := l.Accept()
		if err != nil {
			return errors.Join(ctx.Err(), g.Wait())
		}
		g.Go(func() error {
			a.control(ctx, c)
			return nil
		})
	}
}

// controlPatience is how long a caller may take for its request.
const controlPatience = 5 * time.Second

func (a *Agent) control(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(controlPatience))
	line, err := bufio.NewReader(c).ReadBytes('\n')
	var r request
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	var out answer
	switch {
	case err == nil && r.Service != nil && a.conf.Services != nil:
		var done service.Shared
		done, err = a.conf.Services.Do(ctx, r.Do, *r.Service)
		out.Service = &done
	case err == nil && r.Service != nil:
		err = errNoServices
	case err == nil:
		out.Epoch, err = a.do(ctx, r)
	}
	if err != nil {
		out.Error = err.Error()
	}
	data, err := json.Marshal(out)
	if err == nil {
		_, err = c.Write(append(data, '\n'))
	}
	if err != nil {
		a.log.Debug("lnctl did not wait for the answer", "error", err)
	}
}

func (a *Agent) do(ctx context.Context, r request) (epoch int, err error) {
	if r.Do == "rotate-keys" {
		if epoch, err = a.rotate(ctx, r.Network); err != nil || r.Wait <= 0 {
			return epoch, err
		}
		ctx, cancel := context.WithTimeout(ctx, r.Wait)
		defer cancel()
		return epoch, a.rotated(ctx, r.Network, epoch)
	}
	if r.Do == "evict" || r.Do == "admit" {
		return 0, a.evict(ctx, r.Do, r.Node)
	}
	return 0, fmt.Errorf("%q: is not known here: is lnctl newer than ln-agent?", r.Do)
}

// keepServices tells which networks may have services.
func (a *Agent) keepServices(networks []netconf.AgentNetwork) {
	if a.conf.Services == nil {
		return
	}
	var all []mesh.Network
	for _, n := range networks {
		one := mesh.Network{Name: n.Name, StateDir: a.stateDirOf(n), Device: cmp.Or(n.Config.Bridge, model.BridgeName(n.Name)), Internal: n.Config.IsInternal(), Encrypted: n.Config.Tunnel.Encrypted(), Direct: n.Config.Tunnel.DirectRouting, NoHost: n.Config.NoHost}
		if n.Config.Backend == model.BackendIPTables {
			one.Refused = errNeedsNFT
		}
		all = append(all, one)
	}
	a.conf.Services.Keep(all)
}

var errNeedsNFT = model.BadConfig("backend", "iptables", "cannot balance: services need nftables, or --vip none")

// errNoServices is of networks that Kubernetes keeps: the services of pods are its own.
var errNoServices = errors.New("the ln-agent of this host keeps no services: its networks are those of Kubernetes, which has Services itself: make one there, as by kubectl expose; kube-proxy, which has to run on each host, leads it to its pods")

// serve has the tunnel be as published services of the network need it: 127.0.0.1 leads into it, as
// our rules have the source be another one there; and answers to clients outside, which another
// host led here with their addresses, go back by that host. Until the services have been told it
// leaves all as it is.
func (k keeper) serve(ctx context.Context, f nodefile.File) error {
	s := k.agent.conf.Services
	if s == nil || k.paths == nil {
		return nil
	}
	publishes, preserves, known := s.Publishes(f.Network)
	if !known {
		return nil
	}
	tunnels := []string{plan.VXLANName(f.Network)}
	if f.Encryption != "" {
		tunnels = nil
		for _, epoch := range f.Epochs {
			tunnels = append(tunnels, plan.EpochTunnel(f.Network, epoch))
		}
	}
	var errs []error
	for _, name := range tunnels {
		err := host.SetSysctl("net/ipv4/conf/"+name+"/route_localnet", map[bool]string{false: "0", true: "1"}[publishes])
		if !errors.Is(err, host.ErrReadOnly) || publishes {
			errs = append(errs, err)
		}
	}
	n := returnpath.Network{Device: plan.VXLANName(f.Network)}
	if preserves && f.Encryption == "" {
		n.Nets = f.Subnets
		for _, node := range f.Nodes {
			if node.Address != f.Self {
				n.Peers = append(n.Peers, peerOf(f, node))
			}
		}
	}
	return errors.Join(append(errs, k.paths.Ensure(ctx, n))...)
}

func peerOf(f nodefile.File, node nodefile.Node) returnpath.Peer {
	p := returnpath.Peer{MAC: overlay.MAC(f.VNI, node.Address)}
	has := map[bool]bool{} // by Is6
	for _, b := range node.Blocks {
		if a := b.Masked().Addr(); !has[a.Is6()] && spoken(f.Blocks, a.Is6()) {
			has[a.Is6()] = true
			p.Vias = append(p.Vias, a)
		}
	}
	return p
}

// spoken says that this host has blocks of a family: of others it has no neighbours.
func spoken(own []netip.Prefix, is6 bool) bool {
	return slices.ContainsFunc(own, func(b netip.Prefix) bool { return b.Addr().Is6() == is6 })
}

// withoutReturns takes the return paths of a network away.
func (k keeper) withoutReturns(ctx context.Context) error {
	if k.paths == nil {
		return nil
	}
	return k.paths.Remove(ctx, plan.VXLANName(k.network.Name))
}

// leaveReturns is withoutReturns for a host that leaves.
func leaveReturns(ctx context.Context, network string) error {
	paths, err := returnpath.Open()
	if err != nil {
		return err
	}
	defer paths.Close()
	return paths.Remove(ctx, plan.VXLANName(network))
}
