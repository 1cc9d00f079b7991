// Command pod is all that the containers of the e2e test have inside:
//
//	pod pause            wait to be stopped
//	pod sleep            print the addresses of eth0, then wait to be stopped
//	pod serve PORT       answer each connection with the host's name
//	pod get ADDR:PORT    print what serve answers
//	pod ping ADDR        three echo requests; fails unless all are answered
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	args = append(args, "", "")
	switch args[0] {
	case "pause":
		pause()
		return nil
	case "sleep":
		if err := printAddresses(out); err != nil {
			return err
		}
		pause()
		return nil
	case "serve":
		return serve(args[1])
	case "get":
		return get(args[1], out)
	case "ping":
		return ping(args[1], out)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// pause waits for a signal to end. As process 1 it also reaps its children.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGCHLD)
	for s := range signals {
		if s != unix.SIGCHLD {
			return
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

func printAddresses(out io.Writer) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	addrs, err := eth0.Addrs()
	if err != nil {
		return err
	}
	var all []string
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.IsGlobalUnicast() {
			all = append(all, ip.String())
		}
	}
	_, err = fmt.Fprintln(out, strings.Join(all, " "))
	return err
}

func serve(port string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(conn, "%s\n", name)
		_ = conn.Close()
	}
}

func get(addr string, out io.Writer) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = io.Copy(out, conn)
	return err
}
