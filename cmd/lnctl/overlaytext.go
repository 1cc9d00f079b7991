package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/operator"
)

// overlayNetwork is what overlay peers and overlay check print of a network.
type overlayNetwork struct {
	Network  string        `json:"network"`
	Device   string        `json:"device"`
	MTU      int           `json:"mtu,omitempty"` // missing: there is no device
	Trouble  []string      `json:"trouble,omitempty"`
	Isolated bool          `json:"isolated,omitempty"` // no peer is asked
	Peers    []overlayPeer `json:"peers"`
}

type overlayPeer struct {
	Address    string        `json:"address"`
	Blocks     []string      `json:"blocks"`
	Ways       []overlayWay  `json:"ways"`
	Forwarding overlayEntry  `json:"forwarding"`
	Underlay   *overlayReply `json:"underlay,omitempty"`
	Advice     []string      `json:"advice,omitempty"`
}

type overlayWay struct {
	Block     string        `json:"block"`
	Via       string        `json:"via"`
	Direct    string        `json:"direct,omitempty"` // device by which the block is led to without the tunnel
	Route     overlayEntry  `json:"route"`
	Neighbour overlayEntry  `json:"neighbour"`
	Small     *overlayReply `json:"small,omitempty"`
	Full      *overlayReply `json:"full,omitempty"`
	Largest   int           `json:"largest,omitempty"` // that comes back, if a full packet does not
}

type overlayEntry struct {
	State   string `json:"state"`
	Instead string `json:"instead,omitempty"`
}

// overlayReply is what came of ICMP echo requests of a size.
type overlayReply struct {
	Bytes        int    `json:"bytes"`
	Sent         int    `json:"sent"`
	Milliseconds string `json:"ms,omitempty"` // missing: no answer
	Error        string `json:"error,omitempty"`
}

func overlayOf(n *engine.Network, found operator.Peers) overlayNetwork {
	o := overlayNetwork{
		Network: n.Name(), Device: found.Device, MTU: found.MTU, Trouble: found.Trouble, Isolated: n.Config().NoHost, Peers: []overlayPeer{},
	}
	for _, p := range found.Peers {
		out := overlayPeer{
			Address: p.Address.String(), Blocks: texts(p.Subnets), Ways: []overlayWay{},
			Forwarding: entry(p.FDB), Underlay: reply(p.Underlay), Advice: p.Advice,
		}
		for _, w := range p.Ways {
			out.Ways = append(out.Ways, overlayWay{
				w.Block.String(), w.Via.String(), w.Direct, entry(w.Route), entry(w.Neighbour), reply(w.Answer), reply(w.Full), w.Largest,
			})
		}
		o.Peers = append(o.Peers, out)
	}
	return o
}

func entry(e operator.Entry) overlayEntry { return overlayEntry{string(e.State), e.Instead} }

func reply(a operator.Answer) *overlayReply {
	if a.Size == 0 {
		return nil
	}
	r := &overlayReply{Bytes: a.Size, Sent: a.Sent}
	if a.RTT > 0 {
		r.Milliseconds = fmt.Sprintf("%.2f", a.RTT.Seconds()*1e3)
	}
	if a.Err != nil {
		r.Error = a.Err.Error()
	}
	return r
}

// bad is how many peers have trouble: all of them without a device.
func (o overlayNetwork) bad() int {
	n := 0
	for _, p := range o.Peers {
		if len(p.Advice) > 0 || len(o.Trouble) > 0 {
			n++
		}
	}
	return n
}

// The columns of overlay peers, and those that overlay check has more.
var (
	peersHead = []string{"NETWORK", "PEER", "BLOCK", "ROUTE", "NEIGHBOUR", "FORWARDING"}
	checkHead = append(peersHead[:len(peersHead):len(peersHead)], "ANSWER", "MTU")
)

// writeOverlays writes a row for each block of each peer, and then what to do.
func writeOverlays(out io.Writer, all []overlayNetwork, head []string) error {
	var rows [][]string
	var notes []string
	for _, o := range all {
		for _, text := range o.Trouble {
			notes = append(notes, fmt.Sprintf("%s: %s", o.Network, text))
		}
		if o.Isolated && len(head) > len(peersHead) {
			notes = append(notes, o.Network+": no peer is asked: the network is isolated, and this host opens no connections into it")
		}
		for _, p := range o.Peers {
			for _, w := range p.Ways {
				row := []string{o.Network, p.Address, w.Block, w.route(), w.Neighbour.text(), p.Forwarding.text(), w.Small.text(), w.mtu()}
				rows = append(rows, row[:len(head)])
			}
			if len(p.Ways) == 0 {
				row := []string{o.Network, p.Address, orDash(strings.Join(p.Blocks, ", ")), "-", "-", p.Forwarding.text(), "-", "-"}
				rows = append(rows, row[:len(head)])
			}
			for _, text := range p.Advice {
				notes = append(notes, fmt.Sprintf("%s, %s: %s", o.Network, p.Address, text))
			}
		}
	}
	errs := []error{table(out, head, rows)}
	for _, n := range notes {
		_, err := fmt.Fprintln(out, "→", n)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// text is "present", "missing", or what stands in the place of what is wanted.
func (e overlayEntry) text() string {
	if e.Instead != "" {
		return e.State + ": " + e.Instead
	}
	return orDash(e.State) // of an encrypted network no neighbour is wanted
}

// route is as text of an entry, or by which device the block is reached without the tunnel.
func (w overlayWay) route() string {
	if w.Direct != "" && w.Route.State == string(operator.EntryPresent) {
		return "direct by " + w.Direct
	}
	return w.Route.text()
}

// text is "0.31 ms", or "none".
func (r *overlayReply) text() string {
	switch {
	case r == nil:
		return "-"
	case r.Error != "":
		return r.Error
	case r.Milliseconds == "":
		return "none"
	}
	return r.Milliseconds + " ms"
}

// mtu is the size of a full packet that came back, "less than 1450, at least
// 1350", or a dash if nothing is known.
func (w overlayWay) mtu() string {
	switch {
	case w.Full == nil || w.Small.Milliseconds == "":
		return "-"
	case w.Full.Milliseconds != "":
		return fmt.Sprint(w.Full.Bytes)
	}
	return fmt.Sprintf("%d, not %d", w.Largest, w.Full.Bytes)
}
