// Command demo shows the plugins at work: it plays the runtime, connects two
// containers by a configuration of conf/examples, tries the network, takes it
// down and looks at what is left. With -overlay they are on several hosts.
//
// It starts itself again in network and mount namespaces of its own, which are
// the host of the demo. However that process ends, the kernel then removes
// them, and with them everything the demo made.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideName is argv[0] of the process in the namespaces.
const insideName = "libnet-demo-host"

func main() {
	runtime.LockOSThread() // Pdeathsig is about the thread that starts a process
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if args[0] == machineName {
		if err := runMachine(args[1], args[2:], os.Stdin, stdout); err != nil {
			_, _ = fmt.Fprintf(stderr, "✗ machine %s: %v\n", args[1], err)
			return 1
		}
		return 0
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", "bin", "`directory` of the plugins, as make build fills it")
	conf := flags.String("conf", "conf/examples", "`directory` of 10-single-host.conflist and 71-overlay-agent.conflist")
	overlay := flags.Bool("overlay", false, "show a network that spans hosts, by ln-agent and etcd")
	names := flags.Bool("names", false, "show that containers find each other by name, by ln-agent")
	services := flags.Bool("services", false, "show that the containers of a service are replaced and no request is lost")
	mesh := flags.Bool("mesh", false, "show the same for a service whose containers are on three hosts, by ln-agent and etcd")
	tools := flags.String("tools", ".cache/bin", "`directory` of etcd and cnitool, as make tools fills it")
	if err := flags.Parse(args[1:]); err != nil {
		return 1
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "The demo needs root to make network namespaces.")
		return 1
	}
	if args[0] != insideName {
		return outer(args, stdout, stderr)
	}
	out := newPrinter(stdout)
	if *overlay {
		if err := overlayStory(out, *bin, *tools, filepath.Join(*conf, "71-overlay-agent.conflist")); err != nil {
			out.step(red, "✗", "%v", err)
			return 1
		}
		return 0
	}
	if *mesh {
		if err := meshStory(out, *bin, *tools, filepath.Join(*conf, "71-overlay-agent.conflist")); err != nil {
			out.step(red, "✗", "%v", err)
			return 1
		}
		return 0
	}
	if *services {
		if err := servicesStory(out, *bin, filepath.Join(*conf, "72-names.conflist")); err != nil {
			out.step(red, "✗", "%v", err)
			return 1
		}
		return 0
	}
	if *names {
		if err := namesStory(out, *bin, filepath.Join(*conf, "72-names.conflist")); err != nil {
			out.step(red, "✗", "%v", err)
			return 1
		}
		return 0
	}
	if err := story(out, *bin, filepath.Join(*conf, "10-single-host.conflist")); err != nil {
		out.step(red, "✗", "%v", err)
		return 1
	}
	return 0
}

// outer runs the demo in its namespaces.
func outer(args []string, stdout, stderr io.Writer) int {
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Args[0] = insideName
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	switch {
	case err == nil:
		return 0
	case cmd.ProcessState == nil:
		_, _ = fmt.Fprintln(stderr, "✗ cannot make network and mount namespaces (a container needs CAP_SYS_ADMIN for it):", err)
	case cmd.ProcessState.ExitCode() != 1: // 1 has been explained
		_, _ = fmt.Fprintln(stderr, "✗ the demo broke off:", err)
	}
	return 1
}
