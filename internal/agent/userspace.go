package agent

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/flock"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/plan"
	"github.com/libnet-cni/libnet/internal/wggo"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// Userspace runs wireguard-go for the encrypted networks of a host whose kernel has no
// WireGuard. What the devices are to do plugins tell them. With a kernel that has WireGuard
// it does nothing.
type Userspace struct {
	// ConfDir is where runtimes have their CNI configurations.
	ConfDir string
	// StateDir is that of networks that name no other.
	StateDir string
	Log      *slog.Logger

	running map[string]running // by socket
	mu      sync.Mutex
	said    map[string]string // what was logged last, by what it is about
	look    hint
}

type running struct {
	*wggo.Device
	network netconf.SecureNetwork
}

// Run works until ctx ends. The devices go with it: the containers' packets then reach no
// other host, and none leaves in clear.
func (u *Userspace) Run(ctx context.Context) error {
	u.running, u.said, u.look = map[string]running{}, map[string]string{}, newHint()
	defer func() {
		for _, r := range u.running {
			r.Close()
		}
	}()
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return u.followConf(inner) })
	g.Go(func() error { return u.loop(inner) })
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// followConf has the loop look whenever a configuration changes.
func (u *Userspace) followConf(ctx context.Context) error {
	return followDir(ctx, u.ConfDir, u.Log, u.look.give, func(err error) {
		u.say("watch of configurations", err, unwatched)
	})
}

func (u *Userspace) loop(ctx context.Context) error {
	open := controllers{}
	defer open.close()
	again := time.Duration(0)
	for {
		if err := u.look.wait(ctx, mendPause, cmp.Or(again, rarely)); err != nil {
			return err
		}
		again = 0
		if !u.once(ctx, open) {
			again = mendAgain
		}
	}
}

// once brings the devices to what the configurations say; false: not all of them.
func (u *Userspace) once(ctx context.Context, open controllers) (done bool) {
	networks, err := readConfFiles(u.ConfDir, netconf.SecureNetworks, func(n netconf.SecureNetwork) string { return n.Name })
	u.say("configurations", err, "configurations that cannot be used")
	wanted := map[string]bool{}
	done = true
	for _, n := range networks {
		stateDir := cmp.Or(n.StateDir, u.StateDir)
		devices := []string{plan.EpochTunnel(n.Name, overlay.FirstEpoch)}
		if n.ByAgent { // which uses the other one while keys change
			devices = append(devices, plan.EpochTunnel(n.Name, overlay.FirstEpoch+1))
		}
		for _, device := range devices {
			socket := wireguard.SocketPath(stateDir, device)
			wanted[socket] = true
			err := u.keep(ctx, open, n, stateDir, device, socket)
			u.say("network "+n.Name+" "+device, err, "encrypted network without wireguard-go")
			done = done && err == nil
		}
	}
	for socket, r := range u.running {
		if !wanted[socket] && err == nil {
			u.Log.Info("network has no configuration any more: its device goes", "network", r.network.Name)
			r.Close()
			delete(u.running, socket)
		}
	}
	return done
}

// keep sees to it that a network's device is there. After a new one, what the network's
// record tells of is put back.
func (u *Userspace) keep(ctx context.Context, open controllers, n netconf.SecureNetwork, stateDir, device, socket string) error {
	if r, there := u.running[socket]; there {
		select {
		case <-r.Done():
			r.Close()
			delete(u.running, socket)
		default:
			return nil
		}
	}
	if err := wireguard.Supported(); !errors.Is(err, wireguard.ErrUnsupported) {
		return err
	}
	d, err := wggo.Start(device, socket, u.Log)
	if err != nil {
		return err
	}
	u.running[socket] = running{d, n}
	u.Log.Info("wireguard-go runs", "network", n.Name, "device", device)
	go func() {
		<-d.Done()
		u.look.give()
	}()
	if n.ByAgent && agentRuns(stateDir) {
		return nil // it sees the device come
	}
	if err := checkKey(n); err != nil {
		u.Log.Warn("the other hosts cannot know this one by its key", "network", n.Name, "error", err)
	}
	c, err := open.get(stateDir)
	if err != nil {
		return err
	}
	err = c.Retunnel(ctx, n.Name)
	if n.ByAgent && errors.Is(err, model.ErrNotReady) {
		return nil // ln-agent has not told of it yet
	}
	return err
}

// agentRuns says that ln-agent keeps the networks of a state directory now.
func agentRuns(stateDir string) bool {
	f, err := os.Open(LockPath(stateDir))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	free, err := flock.Try(int(f.Fd()), unix.LOCK_SH)
	return err == nil && !free
}

// LockPath is the file that ln-agent holds while it keeps the networks of a state directory.
func LockPath(stateDir string) string { return filepath.Join(stateDir, "overlay", "agent.lock") }

// UserspaceLockPath is the file that a process holds which runs wireguard-go.
func UserspaceLockPath(stateDir string) string {
	return filepath.Join(stateDir, "wireguard", "agent.lock")
}

// checkKey says that the private key is not that of the public key which the configuration
// has of this host: wireguard-go does not tell plugins the public half.
func checkKey(n netconf.SecureNetwork) error {
	if n.ByAgent {
		return nil
	}
	self, err := nodefile.Own(n.Nodes)
	if err != nil {
		return err
	}
	private, err := wireguard.ReadKeyFile(n.PrivateKeyFile)
	if err != nil {
		return err
	}
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return err
	}
	public := wireguard.Key(key.PublicKey().Bytes())
	for _, node := range n.Nodes {
		if node.Address == self && node.PublicKey != public {
			return fmt.Errorf("privateKeyFile: %q: its public key is %s, and nodes has %s of %s", n.PrivateKeyFile, public, node.PublicKey, self)
		}
	}
	return nil
}

// say logs an error about something, but nothing twice.
func (u *Userspace) say(about string, err error, bad string) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.said[about] != text && err != nil {
		u.Log.Error(bad, "error", text, "about", about)
	}
	u.said[about] = text
}
