package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sync/errgroup"
)

// chain is a list of plugins in a world of its own, called by libcni as a
// runtime does.
type chain struct {
	name  string
	w     *world
	list  *libcni.NetworkConfigList
	cni   *libcni.CNIConfig
	ports int // how many a container that is timed publishes

	present         int    // containers there are beside those that are timed
	presentPorts    int    // how many each of these publishes
	most            int    // how many of these there may be; 0: any number
	netns           string // of the containers that are timed
	calls           int
	add, check, del durations
}

// pluginPath is where the plugins lie: ours, and what they are compared with.
func pluginPath() []string { return []string{os.Getenv("BIN"), os.Getenv("TOOLS")} }

// binary is where one plugin lies.
func binary(plugin string) string {
	for _, dir := range pluginPath() {
		if path := filepath.Join(dir, plugin); exists(path) {
			return path
		}
	}
	return plugin
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// execer starts plugins as libcni itself does.
func execer() *invoke.DefaultExec {
	return &invoke.DefaultExec{RawExec: &invoke.RawExec{}, PluginDecoder: version.PluginDecoder{}}
}

func newCNI(exec invoke.Exec) *libcni.CNIConfig { return libcni.NewCNIConfig(pluginPath(), exec) }

func newChain(name, conf string, w *world) (*chain, error) {
	c := &chain{name: name, w: w, cni: newCNI(execer())}
	if err := c.configure(conf); err != nil {
		return nil, err
	}
	return c, w.do(func() (err error) {
		c.netns, err = newNetns("timed")
		return err
	})
}

func (c *chain) configure(conf string) (err error) {
	if c.list, err = libcni.NetworkConfFromBytes([]byte(conf)); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// container is one to be attached; its ports lead from first on.
type container struct {
	id, netns    string
	first, ports int
}

func (ct container) runtime() *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: ct.id, NetNS: ct.netns, IfName: "eth0"}
	if ct.ports > 0 {
		rt.CapabilityArgs = map[string]any{"portMappings": ct.mappings()}
	}
	return rt
}

func (ct container) mappings() []map[string]any {
	var all []map[string]any
	for i := range ct.ports {
		all = append(all, map[string]any{"hostPort": ct.first + i, "containerPort": 1 + i, "protocol": "tcp"})
	}
	return all
}

// The first host port of timed containers, and of the others.
const (
	timedPort   = 8080
	presentPort = 10_000
)

// timed is the next container that is timed.
func (c *chain) timed() container {
	c.calls++
	return container{id: fmt.Sprintf("timed-%d", c.calls), netns: c.netns, first: timedPort, ports: c.ports}
}

// call times one of libcni's verbs. It is called inside the chain's world.
func (c *chain) call(verb string, rt *libcni.RuntimeConf) (time.Duration, error) {
	start := time.Now()
	err := c.run(verb, rt)
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("%s: %s %s: %w", c.name, verb, rt.ContainerID, err)
	}
	return took, nil
}

func (c *chain) run(verb string, rt *libcni.RuntimeConf) (err error) {
	ctx := context.Background()
	switch verb {
	case "ADD":
		_, err = c.cni.AddNetworkList(ctx, c.list, rt)
	case "CHECK":
		err = c.cni.CheckNetworkList(ctx, c.list, rt)
	case "DEL":
		err = c.cni.DelNetworkList(ctx, c.list, rt)
	}
	return err
}

// cycle times ADD, CHECK and DEL of one container.
func (c *chain) cycle() error {
	return c.w.do(func() error {
		rt := c.timed().runtime()
		add, addErr := c.call("ADD", rt)
		check, checkErr := c.call("CHECK", rt)
		del, delErr := c.call("DEL", rt)
		c.add, c.check, c.del = append(c.add, add), append(c.check, check), append(c.del, del)
		return errors.Join(addErr, checkErr, delErr)
	})
}

// forget drops the times so far.
func (c *chain) forget() { c.add, c.check, c.del = nil, nil, nil }

// populateLimit is how long a chain may take to attach those that are present.
const populateLimit = 80 * time.Second

// populate attaches containers until there are so many, each in a namespace of
// its own and with its ports, several at once. It says whether it could in time.
func (c *chain) populate(count int) (reached bool, err error) {
	for start := time.Now(); c.present < count; {
		if time.Since(start) > populateLimit {
			return false, nil
		}
		next := min(count, c.present+50)
		containers, err := c.containers("present", c.present, next, c.presentPorts)
		if err == nil {
			_, err = c.inParallel("ADD", containers, 4)
		}
		if err != nil {
			return false, fmt.Errorf("%d present: %w", count, err)
		}
		c.present = next
	}
	return true, nil
}

// containers makes the namespaces for containers from to count.
func (c *chain) containers(name string, from, count, ports int) ([]container, error) {
	var all []container
	err := c.w.do(func() error {
		for i := from; i < count; i++ {
			id := fmt.Sprintf("%s-%d", name, i)
			path, err := newNetns(id)
			if err != nil {
				return err
			}
			all = append(all, container{id: id, netns: path, first: presentPort + i*ports, ports: ports})
		}
		return nil
	})
	return all, err
}

// inParallel calls a verb for all containers, so many at once, and returns what
// each call took.
func (c *chain) inParallel(verb string, all []container, workers int) (durations, error) {
	var group errgroup.Group
	var mu sync.Mutex
	var took durations
	var next atomic.Int64
	for range workers {
		group.Go(func() error {
			return c.w.do(func() error {
				for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
					d, err := c.call(verb, all[i].runtime())
					if err != nil {
						return err
					}
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
				return nil
			})
		})
	}
	err := group.Wait()
	return took, err
}
