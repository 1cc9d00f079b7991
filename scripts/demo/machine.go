package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/netns"
)

// machine is a host of its own: a process in network, mount and UTS namespaces,
// joined to the others by the link "lan". It ends with the demo, and with it
// whatever runs there.
type machine struct {
	name    string
	addr    netip.Addr
	init    *exec.Cmd
	orders  io.WriteCloser // to init; closed, the machine ends
	answers *bufio.Reader
	runs    []*exec.Cmd
}

// machineName is argv[0] of a machine's first process.
const machineName = "libnet-demo-machine"

// Where a machine has its programs and its CNI configurations.
const (
	machineBin  = "/run/bin"
	machineConf = "/run/net.d"
)

// lanBits is the length of the subnet of all machines.
const lanBits = 24

// boot starts a machine that has these programs.
func boot(name string, addr netip.Addr, programs ...string) (*machine, error) {
	m := &machine{name: name, addr: addr}
	m.init = exec.Command("/proc/self/exe", append([]string{name}, programs...)...)
	m.init.Args[0] = machineName
	m.init.Stderr = os.Stderr
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Pdeathsig: unix.SIGKILL}
	in, err := m.init.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.init.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.init.Start(); err != nil {
		return nil, err
	}
	m.orders, m.answers = in, bufio.NewReader(out)
	if err := m.answer(); err != nil { // it is up
		return nil, err
	}
	return m, m.plug()
}

func (m *machine) answer() error {
	if line, err := m.answers.ReadString('\n'); err != nil || line != "ok\n" {
		return fmt.Errorf("machine %s: %s %w", m.name, line, err)
	}
	return nil
}

// makeContainer makes a network namespace on the machine.
func (m *machine) makeContainer(id string) error {
	if _, err := fmt.Fprintln(m.orders, id); err != nil {
		return err
	}
	return m.answer()
}

// runMachine is the first process of a machine. Its orders are names of network
// namespaces to be made; when there are no more it ends.
func runMachine(name string, programs []string, orders io.Reader, answers io.Writer) error {
	if err := initMachine(name, programs); err != nil {
		return err
	}
	lines := bufio.NewScanner(orders)
	for {
		if _, err := fmt.Fprintln(answers, "ok"); err != nil {
			return err
		}
		if !lines.Scan() {
			return lines.Err()
		}
		if err := netns.Create("/run/netns/" + lines.Text()); err != nil {
			return err
		}
	}
}

func initMachine(name string, programs []string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var open []*os.File // programs may lie where directories in memory come to be
	for _, p := range programs {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("demo", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	if err := errors.Join(os.Mkdir("/run/netns", 0o755), os.Mkdir(machineBin, 0o755), os.Mkdir(machineConf, 0o755), setUp("lo")); err != nil {
		return err
	}
	for i, f := range open {
		to := filepath.Join(machineBin, filepath.Base(programs[i]))
		err := os.WriteFile(to, nil, 0o600)
		if err == nil {
			err = unix.Mount("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), to, "", unix.MS_BIND, "")
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("program %s: %w", programs[i], err)
		}
	}
	return nil
}

// plug joins the machine to the link.
func (m *machine) plug() error {
	lan, err := netlink.LinkByName("lan")
	if err != nil {
		return err
	}
	ns, err := os.Open(m.netns())
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "to-"+m.name, lan.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return err
	}
	return within(m.netns(), func() error { return setUp("eth0", netip.PrefixFrom(m.addr, lanBits)) })
}

func (m *machine) netns() string { return fmt.Sprintf("/proc/%d/ns/net", m.init.Process.Pid) }

// path is where a file of the machine is to be seen from here.
func (m *machine) path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.init.Process.Pid, file)
}

// container is where a network namespace of the machine is to be seen.
func (m *machine) container(id string) string { return m.path("/run/netns/" + id) }

// command is one on the machine.
func (m *machine) command(env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.init.Process.Pid), "-n", "-m", "-u", "--", program}, args...)...)
	cmd.Env = append([]string{"PATH=" + machineBin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// do runs a program on the machine and returns what it printed.
func (m *machine) do(env []string, program string, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := m.command(env, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s on %s: %w: %s", filepath.Base(program), m.name, err, strings.TrimSpace(said.String()+out.String()))
	}
	return out.Bytes(), nil
}

// daemon starts a program on the machine that goes on, and logs to a file there.
func (m *machine) daemon(program string, args ...string) (*exec.Cmd, error) {
	cmd := m.command(nil, program, args...)
	log, err := os.OpenFile(m.path("/run/"+program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m.runs = append(m.runs, cmd)
	return cmd, nil
}

// crash ends the machine, and all that runs there, without a word.
func (m *machine) crash() {
	for _, cmd := range m.runs {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	m.runs = nil
	_ = m.init.Process.Kill()
	_ = m.init.Wait()
	_ = m.orders.Close()
	if port, err := netlink.LinkByName("to-" + m.name); err == nil {
		_ = netlink.LinkDel(port) // the kernel does it in a while
	}
}

var errPatience = errors.New("it takes too long")

// until calls ok until it says nil, as long as we are patient.
func until(ok func() error) (took time.Duration, err error) {
	start := time.Now()
	for {
		err = ok()
		if took = time.Since(start); err == nil {
			return took, nil
		}
		if took > patient {
			return took, fmt.Errorf("%w (%s): %w", errPatience, patient, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
