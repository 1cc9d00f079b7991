package storm

import (
	"encoding/json"
	"fmt"
	"github.com/libnet-cni/libnet/internal/lntest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// runtimes is a host on which programs share one network, as runtimes do.
type runtimes struct {
	host
	conf object
	pods []string
}

// program makes a file that is a runtime of its own: plugins tell their callers
// apart by these.
func (h host) program(name string) string {
	h.t.Helper()
	sh, err := os.ReadFile("/bin/sh")
	h.check(err)
	path := filepath.Join(h.t.TempDir(), name)
	h.check(lntest.WriteProgram(path, sh))
	return path
}

// run starts a plugin by a program, for a container or, with none, the network.
func (r *runtimes) run(program, verb, pod string, more object) *process {
	conf := object{}
	for _, from := range []object{r.conf, more} {
		for k, v := range from {
			conf[k] = v
		}
	}
	stdin, err := json.Marshal(conf)
	r.check(err)
	p := &process{plugin: "bridge-ln", cmd: exec.Command(program, "-c", `"$0"; exit $?`, filepath.Join(r.bin, "bridge-ln"))}
	p.cmd.Env = []string{"CNI_PATH=" + r.bin, "CNI_COMMAND=" + verb}
	if pod != "" {
		p.cmd.Env = append(p.cmd.Env, "CNI_CONTAINERID="+pod, "CNI_NETNS="+netnsPath(pod), "CNI_IFNAME=eth0")
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(string(stdin)), &p.stdout, &p.stderr
	r.check(p.cmd.Start())
	return p
}

// must waits for a plugin that has to succeed.
func (r *runtimes) must(p *process) {
	r.t.Helper()
	p.wait()
	if f, err := p.failure(); err != nil || f.Code != 0 {
		r.t.Fatalf("%v: %v, %+v", p.cmd.Env, err, f)
	}
}

// TestRuntimes has one runtime add containers while GC runs on the network: that
// of another runtime, or its own, which does not know of them yet. No two
// containers have one address; each that was added is whole, or was collected
// whole by its own runtime.
func TestRuntimes(t *testing.T) {
	for name, other := range map[string]bool{"another's GC": true, "its own GC": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &runtimes{host: newHost(t), conf: object{
				"cniVersion": "1.1.0", "name": "shared", "type": "bridge-ln", "gatewayMode": "nat",
				"ipam": object{"type": "ipam-ln", "strategy": "lowest", "subnet": "10.41.0.0/24"},
			}}
			adds := r.program("adds")
			collects := adds
			if other {
				collects = r.program("collects")
			}
			r.newNetns("own")
			r.must(r.run(collects, "ADD", "own", nil))
			for i := range 8 {
				r.pods = append(r.pods, fmt.Sprintf("g%d", i))
				r.newNetns(r.pods[i])
			}
			rounds, whole := 0, 0
			for lasts := r.lasts(); rounds < 3 || time.Now().Before(lasts); rounds++ {
				whole += r.round(adds, collects, other)
			}
			t.Logf("%d rounds; of %d ADDs %d were whole afterwards", rounds, rounds*len(r.pods), whole)
		})
	}
}

// lasts is when the rounds end.
func (r *runtimes) lasts() time.Time {
	if os.Getenv("LIBNET_STORM") != "" {
		return time.Now().Add(15 * time.Second)
	}
	return time.Now().Add(time.Second)
}

// round adds all containers at once, beside GC, looks, and removes them.
func (r *runtimes) round(adds, collects string, other bool) (whole int) {
	r.t.Helper()
	running := map[string]*process{}
	for _, pod := range r.pods {
		running[pod] = r.run(adds, "ADD", pod, nil)
	}
	for range 4 {
		r.must(r.run(collects, "GC", "", object{"cni.dev/valid-attachments": []object{{"containerID": "own", "ifname": "eth0"}}}))
	}
	has := map[netip.Addr]string{}
	for pod, p := range running {
		r.must(p)
		if !r.whole(adds, pod, p.stdout.Bytes()) {
			if other {
				r.t.Errorf("%s was added, and is not whole", pod)
			}
			r.gone(pod)
			continue
		}
		whole++
		var got result
		r.check(json.Unmarshal(p.stdout.Bytes(), &got))
		for _, a := range got.addrs() {
			if has[a] != "" {
				r.t.Errorf("%s and %s have %s", pod, has[a], a)
			}
			has[a] = pod
		}
	}
	for _, pod := range r.pods {
		running[pod] = r.run(adds, "DEL", pod, nil)
	}
	for _, p := range running {
		r.must(p)
	}
	return whole
}

// whole says what CHECK does.
func (r *runtimes) whole(program, pod string, added []byte) bool {
	p := r.run(program, "CHECK", pod, object{"prevResult": json.RawMessage(added)})
	p.wait()
	f, err := p.failure()
	r.check(err)
	return f.Code == 0
}

// gone holds that nothing of a container is left: no interface, no lease.
func (r *runtimes) gone(pod string) {
	r.t.Helper()
	links, err := netlink.LinkList()
	r.check(err)
	if i := slices.IndexFunc(links, func(l netlink.Link) bool { return strings.HasSuffix(l.Attrs().Alias, "/"+pod+"/eth0") }); i >= 0 {
		r.t.Errorf("%s was collected, but for %s", pod, links[i].Attrs().Name)
	}
	leases, err := filepath.Glob("/var/lib/cni/networks/shared/10.*")
	r.check(err)
	for _, l := range leases {
		if data, _ := os.ReadFile(l); strings.HasPrefix(string(data), pod+"\r\n") {
			r.t.Errorf("%s was collected, but for %s", pod, l)
		}
	}
}
