package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// servicesLab is a host with the network "net", 10.60.0.0/24 and fd60::/64, on br-net, whose
// containers have names, and a machine outside. Services are reached at port 80, their
// containers answer at 8080.
type servicesLab struct {
	*host
	conf string
}

func newServicesLab(t testing.TB, extra map[string]any) *servicesLab {
	t.Helper()
	l := &servicesLab{host: newHost(t)}
	l.world()
	l.check(lntest.NoDAD())
	keys := map[string]any{
		"cniVersion": "1.1.0", "name": "net", "type": "bridge-ln", "bridge": "br-net", "names": true, "gatewayMode": "nat", "mtu": "auto",
		"ipam": map[string]any{"type": "ipam-ln", "dataDir": "/run/leases", "ranges": []any{
			[]any{map[string]any{"subnet": "10.60.0.0/24"}}, []any{map[string]any{"subnet": "fd60::/64"}},
		}},
	}
	for k, v := range extra {
		if keys[k] = v; v == nil {
			delete(keys, k)
		}
	}
	l.conf = edit(t, "{}", keys)
	return l
}

func (l *servicesLab) call(name, alias string) call {
	c := attachment("bridge-ln", name, netnsPath(name), l.conf)
	c.args = "NAME=" + alias
	return c
}

// add starts a container that has an alias and answers at port 8080 of TCP and UDP with its
// name and the client's address.
func (l *servicesLab) add(name, alias string) {
	l.t.Helper()
	ns := l.netns(name)
	l.must(l.call(name, alias).as("ADD"))
	l.serve(name, ns)
}

func (l *servicesLab) serve(name, ns string) {
	l.t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	l.in(ns, func() {
		var err error
		tcp, err = listenTCP(":8080")
		l.check(err)
		udp, err = listenPacket(":8080")
		l.check(err)
	})
	l.t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	saw := func(from net.Addr) []byte {
		return []byte(name + " saw " + netip.MustParseAddrPort(from.String()).Addr().Unmap().String())
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(saw(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(saw(from), from)
		}
	}()
}

// ask opens a connection out of a container, "" is the host, and returns the answer.
func (l *servicesLab) ask(from, network, to string, port int) string {
	l.t.Helper()
	ns := ""
	if from != "" {
		ns = netnsPath(from)
	}
	got := ""
	l.in(ns, func() {
		c, err := net.DialTimeout(network, net.JoinHostPort(to, fmt.Sprint(port)), 5*time.Second)
		if err != nil {
			got = "error: " + err.Error()
			return
		}
		defer func() { _ = c.Close() }()
		if got, err = lntest.Exchange(c, "?", 5*time.Second); err != nil {
			got = "error: " + err.Error()
		}
	})
	return got
}

// lnctl calls lnctl and returns what it prints, and its error.
func (l *servicesLab) tryLnctl(args ...string) (string, error) {
	out, err := exec.Command(program(l.t, "lnctl"), append([]string{"--data-dir", "/run/leases"}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// beginLnctl starts lnctl, and returns what waits for its end. Only this goroutine is on the host
// of the lab.
func (l *servicesLab) beginLnctl(args ...string) (wait func() (string, error)) {
	l.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program(l.t, "lnctl"), append([]string{"--data-dir", "/run/leases"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	l.check(cmd.Start())
	return func() (string, error) {
		err := cmd.Wait()
		return strings.TrimSpace(out.String()), err
	}
}

func (l *servicesLab) lnctl(args ...string) string {
	l.t.Helper()
	out, err := l.tryLnctl(args...)
	if err != nil {
		l.t.Fatalf("lnctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// create makes the service "web" and returns its addresses.
func (l *servicesLab) create(args ...string) (v4, v6 string) {
	l.t.Helper()
	out := l.lnctl(append([]string{"service", "create", "web", "--network", "net", "--select", "alias=web", "--port", "80:8080/tcp", "--port", "80:8080/udp"}, args...)...)
	v4, v6, _ = strings.Cut(out, ",")
	return v4, v6
}
