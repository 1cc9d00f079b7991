package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// namesDemo shows that containers find each other by name.
type namesDemo struct {
	*demo
	agent *exec.Cmd
}

// agentAddress is where the agent tells of its health.
const agentAddress = "127.0.0.1:9468"

// outsideName is what the server outside knows.
const outsideName = "outside.example"

// namesStory tells it all; the first step that fails ends it.
func namesStory(out *printer, bin, conf string) error {
	runtime, err := newCaller(bin, conf)
	if err != nil {
		return err
	}
	runtime.names = map[string]string{"c1": "shop", "c2": "db"}
	if err := build(); err != nil {
		return err
	}
	before, err := takeSnapshot()
	if err != nil {
		return err
	}
	d := &namesDemo{demo: &demo{out, runtime, before}}
	d.printf("Two containers find each other by name, though their resolv.conf names a server\n")
	d.printf("outside that knows nothing of them. What is not theirs still goes to that server.\n\n")
	d.row("conf", "%s, network %q, \"names\": %v", filepath.Base(conf), runtime.list.Name, runtime.list.Plugins[0]["names"])
	stop, err := serveNames()
	if err != nil {
		return err
	}
	defer stop()
	defer func() {
		if d.agent != nil {
			_ = d.stop(unix.SIGKILL)
		}
	}()
	for _, chapter := range []func() error{d.start, d.add, d.ask, d.kill, d.again, d.end, d.left} {
		if err := chapter(); err != nil {
			return err
		}
	}
	return nil
}

// serveNames answers outside, at port 53, for outsideName.
func serveNames() (stop func(), err error) {
	s := &dns.Server{Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		switch question := q.Question[0]; {
		case question.Name != outsideName+".":
			m.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{203, 0, 113, 7}})
		}
		_ = w.WriteMsg(m)
	})}
	err = within(outside, func() (err error) {
		s.PacketConn, err = net.ListenPacket("udp", ":53")
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = s.ActivateAndServe() }()
	return func() { _ = s.Shutdown() }, nil
}

func (d *namesDemo) start() error {
	d.head("AGENT", "ln-agent --local answers for names; it needs no etcd.")
	return d.startAgent()
}

func (d *namesDemo) startAgent() error {
	d.agent = exec.Command("./ln-agent", "--local", "--listen", agentAddress)
	d.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := d.agent.Start(); err != nil {
		return err
	}
	for start := time.Now(); !ready(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			return errors.New("ln-agent is not ready")
		}
	}
	d.step(green, "✓", "runs as process %d", d.agent.Process.Pid)
	return nil
}

// ready says that the agent takes queries.
func ready() bool {
	resp, err := http.Get("http://" + agentAddress + "/healthz")
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func (d *namesDemo) stop(signal syscall.Signal) error {
	agent := d.agent
	d.agent = nil
	err := agent.Process.Signal(signal)
	_ = agent.Wait()
	return err
}

func (d *namesDemo) add() error {
	d.head("ADD", "CNI_ARGS says what a container is called.")
	for _, id := range []string{"c1", "c2"} {
		if err := d.call("ADD", id, "CNI_ARGS=NAME="+d.runtime.names[id]); err != nil {
			return err
		}
	}
	return nil
}

// resolve asks the server outside, out of c1.
func (d *namesDemo) resolve(name string) (answer string, took time.Duration, err error) {
	server := uplinks()[0].outside.Addr().String()
	start := time.Now()
	out, err := exec.Command("./lnctl", "names", "resolve", "--as", "shop", "--server", server, name).CombinedOutput()
	took = time.Since(start)
	if answer = strings.Join(strings.Fields(string(out)), " "); err != nil && !strings.Contains(answer, "no such host") {
		return "", took, fmt.Errorf("%w: %s", err, answer)
	}
	if err != nil {
		answer = "no such name"
	}
	return answer, took, nil
}

// want asks, and wants an answer.
func (d *namesDemo) want(name, want, why string) error {
	got, took, err := d.resolve(name)
	if err == nil && got != want {
		err = fmt.Errorf("shop asks for %s: %s, want %s", name, got, want)
	}
	if err != nil {
		return err
	}
	d.ok(took, fmt.Sprintf("%-15s %-15s %s", name, got, why))
	return nil
}

func (d *namesDemo) db() string { return d.runtime.results["c2"].IPs[0].Address.IP.String() }

func (d *namesDemo) ask() error {
	d.head("ASK", "shop asks the server outside, by a process of lnctl each time.")
	return errors.Join(
		d.want("db", d.db(), "ln-agent answers"),
		d.want("db.lab.example", d.db(), "with the network's domain"),
		d.want(d.db(), "db.lab.example.", "the name of an address"),
		d.want("gateway", d.runtime.results["c1"].IPs[0].Gateway.String(), "the host"),
		d.want("no.lab.example", "no such name", "our domain: not asked outside"),
		d.want(outsideName, "203.0.113.7", "the server outside answers"))
}

func (d *namesDemo) kill() error {
	d.head("KILL", "kill -9 of ln-agent: queries pass at once.")
	if err := d.stop(unix.SIGKILL); err != nil {
		return err
	}
	return errors.Join(
		d.want(outsideName, "203.0.113.7", "the server outside answers"),
		d.want("db", "no such name", "it knows no db"))
}

func (d *namesDemo) again() error {
	d.head("AGAIN", "It reads the records, and answers.")
	start := time.Now()
	if err := d.startAgent(); err != nil {
		return err
	}
	for {
		got, _, err := d.resolve("db")
		if err != nil || time.Since(start) > 10*time.Second {
			return errors.Join(errors.New("db is not answered"), err)
		}
		if got == d.db() {
			d.ok(time.Since(start), "db               "+got)
			break
		}
	}
	if err := d.call("DEL", "c2", ""); err != nil {
		return err
	}
	return d.want("db", "no such name", "at once")
}

func (d *namesDemo) end() error {
	// The agent's lock stays for the next agent.
	if err := errors.Join(d.stop(unix.SIGTERM), os.RemoveAll("/run/libnet/overlay")); err != nil {
		return err
	}
	return d.del()
}
