package wireguard

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/sorting"
)

// patience bounds how long a wireguard-go may take for an answer, in seconds: one that is
// stopped must not stop a plugin.
const patience = 5

func (d Device) readByText() (s State, err error) {
	answer, err := d.ask("get=1\n\n")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(answer) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if err := s.take(key, value); err != nil {
			return s, fmt.Errorf("wireguard-go of %s: %s: %w", d.Name, key, err)
		}
	}
	return s, nil
}

// take takes a line of wireguard-go.
func (s *State) take(key, value string) error {
	last := len(s.Peers) - 1
	switch {
	case key == "private_key":
		k, err := parseHex(value)
		s.PrivateKey = PrivateKey(k)
		return err
	case key == "listen_port":
		port, err := strconv.ParseUint(value, 10, 16)
		s.Port = uint16(port)
		return err
	case key == "public_key":
		k, err := parseHex(value)
		s.Peers = append(s.Peers, Peer{PublicKey: k})
		return err
	case key == "endpoint" && last >= 0:
		a, err := netip.ParseAddrPort(value)
		s.Peers[last].Endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		return err
	case key == "allowed_ip" && last >= 0:
		p, err := netip.ParsePrefix(value)
		s.Peers[last].Allowed = append(s.Peers[last].Allowed, p)
		return err
	case last >= 0:
		return s.Peers[last].takeNumber(key, value)
	}
	return nil
}

// takeNumber takes a line of a peer that is a number.
func (p *Peer) takeNumber(key, value string) (err error) {
	switch key {
	case "persistent_keepalive_interval":
		seconds, e := strconv.ParseUint(value, 10, 16)
		p.Keepalive, err = uint16(seconds), e
	case "last_handshake_time_sec":
		p.Handshake, err = strconv.ParseInt(value, 10, 64)
	case "rx_bytes":
		p.Received, err = strconv.ParseUint(value, 10, 64)
	case "tx_bytes":
		p.Sent, err = strconv.ParseUint(value, 10, 64)
	}
	return err
}

func parseHex(s string) (Key, error) {
	data, err := hex.DecodeString(s)
	if err != nil || len(data) != keySize {
		return Key{}, errors.New("want 64 hex digits")
	}
	return Key(data), nil
}

func (d Device) changeByText(c Change) error {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + "=" + value + "\n") }
	line("set", "1")
	if c.PrivateKey != nil {
		line("private_key", Key(*c.PrivateKey).hex())
	}
	if c.Port != nil {
		line("listen_port", strconv.Itoa(int(*c.Port)))
	}
	for _, k := range c.Remove {
		line("public_key", k.hex())
		line("remove", "true")
	}
	for _, p := range keepaliveLast(c.Set) {
		line("public_key", p.PublicKey.hex())
		if p.Endpoint.IsValid() {
			line("endpoint", p.Endpoint.String())
		}
		if p.Keepalive != 0 {
			line("persistent_keepalive_interval", strconv.Itoa(int(p.Keepalive)))
		}
		line("replace_allowed_ips", "true")
		for _, a := range p.Allowed {
			line("allowed_ip", a.String())
		}
	}
	b.WriteString("\n")
	_, err := d.ask(b.String())
	return err
}

// keepaliveLast returns peers with those that have a Keepalive last: wireguard-go begins a
// handshake with every peer of a request that comes after one of these. If both ends begin one
// at the same time, wireguard-go may keep a session that the other end has not, and packets of
// one direction are lost until the next handshake, two minutes later.
func keepaliveLast(all []Peer) []Peer {
	all = slices.Clone(all)
	sorting.Stable(all, func(a, b Peer) int { return cmp.Compare(min(a.Keepalive, 1), min(b.Keepalive, 1)) })
	return all
}

// ask sends a request and returns the answer, without its last line, which says whether it
// succeeded. Go's poller is not started for it: see package plain.
func (d Device) ask(request string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("wireguard-go of %s: %w", d.Name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, way := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, way, &unix.Timeval{Sec: patience})
	}
	if err := again(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: d.Socket}) }); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoDaemon, d.Socket, err)
	}
	answer, err := talk(fd, []byte(request))
	if err != nil {
		return "", fmt.Errorf("wireguard-go of %s: %w", d.Name, err)
	}
	body, code, found := strings.Cut(string(answer), "errno=")
	number, err := strconv.Atoi(strings.TrimSpace(code))
	switch {
	case !found || err != nil:
		return "", fmt.Errorf("wireguard-go of %s: an answer that does not end: %q", d.Name, code)
	case number == -int(unix.EADDRINUSE) || number == int(unix.EADDRINUSE):
		return "", ErrPortInUse
	case number != 0:
		return "", fmt.Errorf("wireguard-go of %s refuses the change: errno %d: see the log of ln-agent", d.Name, number)
	}
	return body, nil
}

// talk writes a request and reads until the empty line that ends an answer.
func talk(fd int, request []byte) (answer []byte, err error) {
	for len(request) > 0 {
		var n int
		err := again(func() (err error) { n, err = unix.Write(fd, request); return err })
		if err != nil {
			return nil, err
		}
		request = request[n:]
	}
	buf := make([]byte, 16<<10)
	for !bytes.HasSuffix(answer, []byte("\n\n")) {
		var n int
		err := again(func() (err error) { n, err = unix.Read(fd, buf); return err })
		if err != nil || n == 0 {
			return answer, err
		}
		answer = append(answer, buf[:n]...)
	}
	return answer, nil
}

// again repeats what a signal ended.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
