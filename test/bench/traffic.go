package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// Each measurement takes about so long, or so many round trips.
const (
	spell = 150 * time.Millisecond
	trips = 2000
)

// measureAll measures every path of every lab in turn.
func measureAll(labs []*lab, rounds int) error {
	order := append([]*lab{}, labs...)
	for range rounds {
		for _, p := range paths {
			rand.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
			for _, l := range order {
				if err := l.measure(p); err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, p, err)
				}
			}
		}
	}
	return nil
}

// ends are the receiving and the sending place of a path, and where the sender
// finds the receiver.
func (l *lab) ends(p path) (receiver, sender place, target string) {
	switch p {
	case containers, throughTunnel:
		return l.a, l.b, net.JoinHostPort(l.a.addr, strconv.Itoa(servedPort))
	case toHost:
		return l.host, l.a, net.JoinHostPort(l.host.addr, strconv.Itoa(servedPort))
	}
	return l.a, l.client, l.target
}

func (l *lab) measure(p path) error {
	receiver, sender, target := l.ends(p)
	f := l.got[p]
	bits, err := l.overTCP(receiver, sender, target, stream)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	f.stream = append(f.stream, bits)
	_, err = l.overTCP(receiver, sender, target, func(in, out net.Conn) (float64, error) {
		took, err := roundTrips(in, out)
		if err != nil {
			return 0, err
		}
		f.trip = append(f.trip, took...)
		f.trips = append(f.trips, 1/took.percentile(50).Seconds())
		return 0, nil
	})
	if err != nil {
		return fmt.Errorf("round trips: %w", err)
	}
	rate, err := l.datagrams(receiver, sender, target)
	f.packets = append(f.packets, rate)
	if err != nil {
		return fmt.Errorf("packets: %w", err)
	}
	return nil
}

// overTCP connects sender to receiver and runs fn with both ends.
func (l *lab) overTCP(receiver, sender place, target string, fn func(in, out net.Conn) (float64, error)) (value float64, err error) {
	var listener net.Listener
	err = l.at(receiver.netns, func() (err error) {
		listener, err = net.Listen("tcp4", ":"+strconv.Itoa(servedPort))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = listener.Close() }()
	var out net.Conn
	err = l.at(sender.netns, func() (err error) {
		out, err = net.DialTimeout("tcp4", target, 5*time.Second)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	in, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	deadline := time.Now().Add(30 * time.Second)
	if err := errors.Join(in.SetDeadline(deadline), out.SetDeadline(deadline)); err != nil {
		return 0, err
	}
	return fn(in, out)
}

// stream is bits per second of one connection.
func stream(in, out net.Conn) (float64, error) {
	sent := make(chan error, 1)
	start := time.Now()
	go func() {
		block := make([]byte, 128<<10)
		var err error
		for err == nil && time.Since(start) < spell {
			_, err = out.Write(block)
		}
		sent <- errors.Join(err, out.Close())
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, make([]byte, 128<<10))
	took := time.Since(start)
	return float64(n) * 8 / took.Seconds(), errors.Join(err, <-sent)
}

// roundTrips sends a byte to and fro.
func roundTrips(in, out net.Conn) (durations, error) {
	echoed := make(chan error, 1)
	go func() {
		b := make([]byte, 1)
		for range trips {
			if _, err := io.ReadFull(in, b); err != nil {
				echoed <- err
				return
			}
			if _, err := in.Write(b); err != nil {
				echoed <- err
				return
			}
		}
		echoed <- nil
	}()
	var took durations
	b := make([]byte, 1)
	for range trips {
		start := time.Now()
		if _, err := out.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(out, b); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, <-echoed
}

// datagrams is how many small ones arrive in a second.
func (l *lab) datagrams(receiver, sender place, target string) (float64, error) {
	var in net.PacketConn
	err := l.at(receiver.netns, func() (err error) {
		in, err = net.ListenPacket("udp4", ":"+strconv.Itoa(servedPort))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	var out net.Conn
	err = l.at(sender.netns, func() (err error) {
		out, err = net.Dial("udp4", target)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	stop := time.Now().Add(spell)
	if err := in.SetReadDeadline(stop); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		datagram := make([]byte, 64)
		var err error
		for err == nil && time.Now().Before(stop) {
			_, err = out.Write(datagram)
		}
		sent <- err
	}()
	count, buf := 0, make([]byte, 128)
	start := time.Now()
	for err == nil {
		if _, _, err = in.ReadFrom(buf); err == nil {
			count++
		}
	}
	took := time.Since(start)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = nil
	}
	if count == 0 {
		err = errors.Join(err, errors.New("nothing arrives"))
	}
	return float64(count) / took.Seconds(), errors.Join(err, <-sent)
}
