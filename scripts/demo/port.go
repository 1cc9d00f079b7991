package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// dialTimeout is how long a client waits: an answer takes a fraction of it.
const dialTimeout = 300 * time.Millisecond

// serve answers each client that connects to webPort in the namespace at path, until stop is
// called.
func serve(path string, answer func(client netip.Addr) string) (stop func(), err error) {
	var l net.Listener
	err = within(path, func() error {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", webPort))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, answer(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()))
			_ = c.Close()
		}
	}()
	return func() { _ = l.Close() }, nil
}

// dial connects from the namespace at path and returns how long that took and
// which source address the server saw.
func dial(path string, to netip.AddrPort) (took time.Duration, seen netip.Addr, err error) {
	var c net.Conn
	start := time.Now()
	err = within(path, func() error {
		c, err = net.DialTimeout("tcp", to.String(), dialTimeout)
		return err
	})
	if err != nil {
		return 0, seen, err
	}
	took = time.Since(start)
	defer func() { _ = c.Close() }()
	buf := make([]byte, 64)
	_ = c.SetDeadline(time.Now().Add(pingTimeout))
	n, err := c.Read(buf)
	if err != nil {
		return 0, seen, err
	}
	seen, err = netip.ParseAddr(string(buf[:n]))
	return took, seen, err
}
