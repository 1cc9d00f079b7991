package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libnet-cni/libnet/internal/balancer"
	"github.com/libnet-cni/libnet/internal/enforce"
	"github.com/libnet-cni/libnet/internal/graph"
	"github.com/libnet-cni/libnet/internal/mesh"
	"github.com/libnet-cni/libnet/internal/names"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/nodefile"
	"github.com/libnet-cni/libnet/internal/overlay"
	"github.com/libnet-cni/libnet/internal/returnpath"
	"github.com/libnet-cni/libnet/internal/telemetry"
)

// Registry is where the hosts of a network meet; etcd.Registry is one.
type Registry interface {
	Session(ctx context.Context, known func() []overlay.Known, seen func(overlay.View)) error
	Agree(ctx context.Context, network string, t overlay.Terms) error
	Claim(ctx context.Context, network string, s overlay.Shared, at overlay.Moment, block netip.Prefix) error
	Reclaim(ctx context.Context, v overlay.View, node string) (freed []netip.Prefix, err error)
	Quiet(ctx context.Context) error
}

// Config is what an agent works with.
type Config struct {
	// ConfDir is where runtimes have their CNI configurations.
	ConfDir string
	// StateDir is where the node files of networks are that name no other.
	StateDir string
	// Name and Address of this host.
	Name    string
	Address netip.Addr
	// Listen is where health and metrics are served, as "127.0.0.1:9468"; empty:
	// nowhere.
	Listen string
	// Registry is where the hosts of overlay networks meet; nil: this host is alone,
	// and the agent only answers for names.
	Registry Registry
	// RegistryName is what the registry is called in messages; empty: "etcd".
	RegistryName string
	// ShareNames has the names of containers told to the registry, by which they get to other hosts.
	ShareNames bool
	// Keys is where the hosts of encrypted networks tell each other their keys; nil: the agent
	// keeps no such network.
	Keys KeyRegistry
	// RunWireGuard has another process run wireguard-go, where the kernel has no WireGuard, and
	// returns when that has ended; nil: none does.
	RunWireGuard func(context.Context) error
	// RotateEvery is after which time the keys of encrypted networks are changed; 0: only when
	// asked for.
	RotateEvery time.Duration
	// HealAfter is after which time the keys of an encrypted network are changed with a host that
	// lives and is out of reach; 0: never.
	HealAfter time.Duration
	// Names answers queries for names of containers; nil: none are answered.
	Names *names.Service
	// Services keeps this host's part of services; nil: none is kept.
	Services *mesh.Mesh
	// Policies enforces NetworkPolicies; nil: none are enforced.
	Policies *enforce.Enforcer
	// Graph looks at the networks of this host, to draw them; nil: they are not drawn.
	Graph func(context.Context) ([]graph.Host, error)
	// Calls takes reports of plugins' calls; nil: none are taken.
	Calls *telemetry.Calls
	Log   *slog.Logger
}

// Agent keeps the networks of a host.
type Agent struct {
	conf     Config
	log      *slog.Logger
	metrics  *metrics
	mend     hint // look at the kernel
	claim    hint // look at the registry
	announce hint // tell the registry of keys
	heal     hint // look at the peers of encrypted networks
	secret   hint // look whether wireguard-go is needed
	direct   hint // look at the segment

	started time.Time

	mu       sync.Mutex
	networks []netconf.AgentNetwork
	confErr  error
	view     *overlay.View // nil: none yet
	apart    error         // why there is no session; nil: there is one
	status   map[string]status
	said     map[string]string        // what was logged last, by what it is about
	former   map[string]nodefile.File // of networks that have no block at the moment, and had
	lost     map[netip.Prefix]bool    // blocks that the log has been loud about
	secrets  map[string]*secret       // by network
	segments map[string]segment       // by network

	questions map[string]*question // of the claim loop, by network
	confRead  chan struct{}        // closed once the configurations have been read
}

// errStarting is what there is no session for at first.
var errStarting = errors.New("has not been reached yet")

// starting is errStarting of a registry.
func (a *Agent) starting() error { return fmt.Errorf("%s %w", a.conf.RegistryName, errStarting) }

// New returns an agent that has done nothing yet.
func New(c Config) *Agent {
	c.RegistryName = cmp.Or(c.RegistryName, "etcd")
	a := &Agent{
		conf: c, log: c.Log, mend: newHint(), claim: newHint(), announce: newHint(), heal: newHint(), secret: newHint(), direct: newHint(), secrets: map[string]*secret{}, segments: map[string]segment{},
		status: map[string]status{}, said: map[string]string{}, former: map[string]nodefile.File{},
		lost: map[netip.Prefix]bool{}, questions: map[string]*question{},
		confRead: make(chan struct{}), started: time.Now(),
	}
	if c.Registry != nil {
		a.apart = a.starting()
		a.said[aboutRegistry] = a.apart.Error()
	}
	if c.Services != nil {
		c.Services.OnPublishing(a.mend.give)
	}
	a.metrics = newMetrics(a)
	return a
}

// quietPatience is how long the registry may take to hear that the agent stops.
const quietPatience = 2 * time.Second

// Run works until ctx ends. The kernel then stays as it is, and so do this
// host's blocks. An error is what no agent can work with.
func (a *Agent) Run(ctx context.Context) error {
	a.log.Info("ln-agent starts", "node", a.conf.Name, "address", a.conf.Address)
	g, inner := errgroup.WithContext(ctx)
	for _, task := range a.tasks() {
		g.Go(func() error { return task(inner) })
	}
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	a.quiet(ctx)
	a.log.Info("ln-agent stops; the networks stay as they are")
	return err
}

// tasks are what goes on beside each other.
func (a *Agent) tasks() []func(context.Context) error {
	all := []func(context.Context) error{a.serve, a.beside("lnctl agent", a.diagnose)}
	if a.conf.Names != nil {
		all = append(all, a.conf.Names.Run)
	}
	if a.conf.Services != nil {
		all = append(all, a.conf.Services.Run)
	}
	if a.conf.Calls != nil {
		all = append(all, a.beside("reports of calls", a.conf.Calls.Run))
	}
	if a.conf.Policies != nil {
		all = append(all, a.conf.Policies.Run)
	}
	if a.conf.Registry != nil {
		all = append(all, a.followConf, a.followRegistry, a.claimLoop, a.mendLoop, a.followKernel, a.followRules)
	}
	if a.conf.Registry != nil && a.conf.Services != nil {
		all = append(all, a.followServiceRules, a.followReturns, a.followReturnRules)
	}
	if a.conf.Keys != nil {
		all = append(all, a.announceLoop, a.userspaceLoop, a.rotateLoop, a.controlLoop, a.healLoop, a.directLoop)
	}
	return all
}

// beside is a task without which the agent goes on: networks need none of it.
func (a *Agent) beside(about string, task func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := task(ctx); ctx.Err() == nil {
			a.log.Error(about+" cannot be served", "error", err)
		}
		return nil
	}
}

// quiet tells the registry that this agent stops.
func (a *Agent) quiet(ctx context.Context) {
	if a.conf.Registry == nil {
		return
	}
	quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), quietPatience)
	defer cancel()
	if quietErr := a.conf.Registry.Quiet(quiet); quietErr != nil {
		a.log.Warn(a.conf.RegistryName+" was not told that this node's agent stops", "error", quietErr)
	}
}

// The time until a lost session is begun again lies between these.
const (
	soonest = 100 * time.Millisecond
	latest  = time.Second
)

func (a *Agent) followRegistry(ctx context.Context) error {
	select {
	case <-a.confRead: // what this host knows is where the configurations say
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		err := a.conf.Registry.Session(ctx, a.known, a.seen)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.mu.Lock()
		a.apart = err
		a.mu.Unlock()
		a.say(aboutRegistry, err, "not in touch with "+a.conf.RegistryName+"; containers keep their connections", "")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(soonest + rand.N(latest-soonest)): // not all hosts at once
		}
	}
}

func (a *Agent) seen(v overlay.View) {
	a.mu.Lock()
	a.view, a.apart = &v, nil
	a.mu.Unlock()
	a.say(aboutRegistry, nil, "", "in touch with "+a.conf.RegistryName)
	if a.conf.Services != nil {
		a.conf.Services.Seen(v)
	}
	a.mend.give()
	a.claim.give()
	a.announce.give()
	a.direct.give()
}

func (a *Agent) followKernel(ctx context.Context) error {
	return watch(ctx, func() {
		a.mend.give()
		a.direct.give()
	})
}

func (a *Agent) followRules(ctx context.Context) error {
	return watchRules(ctx, a.mend.give)
}

// followServiceRules has services look at their tables after each removal of something in these.
func (a *Agent) followServiceRules(ctx context.Context) error {
	return watchTable(ctx, balancer.TableName, a.conf.Services.Lost)
}

// followReturns and followReturnRules look at return paths after each removal of a part of them.
// Routes are told of by followKernel.
func (a *Agent) followReturns(ctx context.Context) error { return watchReturns(ctx, a.mend.give) }

func (a *Agent) followReturnRules(ctx context.Context) error {
	return watchTable(ctx, returnpath.TableName, a.mend.give)
}

// situation is what the loops look at, at a time.
type situation struct {
	networks []netconf.AgentNetwork
	view     *overlay.View // nil: none yet
}

func (a *Agent) situation() situation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return situation{a.networks, a.view}
}

// change changes the status of a network, unless its configuration is gone: a
// loop may still be at work on it then.
func (a *Agent) change(network string, fn func(*status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.ContainsFunc(a.networks, func(n netconf.AgentNetwork) bool { return n.Name == network }) {
		return
	}
	s := a.status[network]
	fn(&s)
	a.status[network] = s
}

// errSoon is what passes by itself in most cases, as when the agent starts.
var errSoon = errors.New("wait")

// aboutRegistry is what lines of the log about the session are about.
const aboutRegistry = "registry"

// say logs an error about something under the heading bad, and once there is
// none any more, good; but nothing twice. Empty: no line.
func (a *Agent) say(about string, err error, bad, good string, args ...any) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	before := a.said[about]
	a.said[about] = text
	a.mu.Unlock()
	switch {
	case text == before:
	case errors.Is(err, errSoon):
		a.log.Info(bad, append(args, "error", text)...)
	case err != nil:
		a.log.Error(bad, append(args, "error", text)...)
	case good != "":
		a.log.Info(good, args...)
	}
}

// hint says that there is something to look at. Many are as one.
type hint chan struct{}

func newHint() hint { return make(hint, 1) }

func (h hint) give() {
	select {
	case h <- struct{}{}:
	default:
	}
}

// wait returns when there is a hint, or after a time; not before pause has
// passed, so that what comes in a rush is looked at once.
func (h hint) wait(ctx context.Context, pause, most time.Duration) error {
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h:
	case <-late.C:
	}
	return nil
}

// ofNetwork says which network an error is about.
func ofNetwork(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("network %s: %w", name, err)
}
