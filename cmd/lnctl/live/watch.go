package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/state"
)

// Host is what the commands have of lnctl.
type Host struct {
	*console.Output
	StateDir  *string
	Permitted func() error
	Networks  cobra.CompletionFunc
	Records   func() ([]state.Endpoint, error)
}

// event is an attachment that came, changed or went.
type event struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"` // is, attached, changed, detached
	Network   string    `json:"network"`
	Container string    `json:"container"`
	Interface string    `json:"interface"`
	Addresses []string  `json:"addresses"`
	Names     []string  `json:"names"`
	Ports     []string  `json:"ports"`
}

// WatchCommand is "lnctl watch".
func WatchCommand(h Host) *cobra.Command {
	var all bool
	var count int
	cmd := &cobra.Command{
		Use:   "watch [NETWORK]",
		Short: "Say which attachments come, change and go, until it is interrupted",
		Long: "Say of each attachment to NETWORK, or to any network, when it is complete, when something about it changes, as its names,\n" +
			"and when it is gone; ports of portmap-ln are not in it. With -o json each is a line. It ends when it is interrupted.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return console.Usage("want one network or none, got %d", len(args))
			}
			return nil
		},
		ValidArgsFunction: h.Networks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := h.Permitted(); err != nil {
				return err
			}
			w := watcher{out: cmd.OutOrStdout(), format: h.Format, all: all, left: count, known: map[string]event{}}
			if len(args) > 0 {
				w.network = args[0]
			}
			return w.follow(cmd.Context(), state.New(*h.StateDir))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "say first what is there already")
	cmd.Flags().IntVar(&count, "count", 0, "end after `n` of them; 0: never")
	return cmd
}

// watcher says what a Follower tells.
type watcher struct {
	out     io.Writer
	format  console.Format
	network string // empty: any
	all     bool
	left    int // 0: no end
	known   map[string]event
}

// errEnough ends it after --count.
var errEnough = errors.New("enough")

func (w *watcher) follow(ctx context.Context, dir *state.Dir) error {
	f, err := dir.Follow()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() { stop(); _ = f.Close() }()
	first := true
	for {
		var events []event
		// A record that cannot be read is as if it were gone, until an ADD writes it anew.
		_ = f.Changes(func(c state.Change) {
			if w.network == "" || c.Network == w.network {
				if e, is := w.event(c, first); is {
					events = append(events, e)
				}
			}
		}, func() error { return nil })
		slices.SortStableFunc(events, func(a, b event) int {
			return strings.Compare(a.Network+"/"+a.Container+"/"+a.Interface, b.Network+"/"+b.Container+"/"+b.Interface)
		})
		for _, e := range events {
			if err := w.say(e); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		}
		first = false
		if err := f.Wait(); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// event is what became of an attachment. One that is not complete is none yet.
func (w *watcher) event(c state.Change, first bool) (event, bool) {
	key := c.Network + "/" + c.ContainerID + "/" + c.IfName
	old, was := w.known[key]
	if c.Record == nil || c.Record.Phase != state.PhaseReady {
		delete(w.known, key)
		old.Time, old.Event = time.Now(), "detached"
		return old, was
	}
	now := eventOf(*c.Record)
	w.known[key] = now
	now.Time = time.Now()
	switch {
	case first:
		now.Event = "is"
		return now, w.all
	case !was:
		now.Event = "attached"
		return now, true
	}
	now.Event = "changed"
	return now, !slices.Equal(now.Addresses, old.Addresses) || !slices.Equal(now.Names, old.Names) || !slices.Equal(now.Ports, old.Ports)
}

func eventOf(r state.Endpoint) event {
	e := event{Network: r.Network, Container: r.ContainerID, Interface: r.Inside(), Addresses: []string{}, Names: []string{}, Ports: []string{}}
	for _, a := range r.Addresses {
		e.Addresses = append(e.Addresses, a.Prefix.Addr().String())
	}
	if r.Names != nil {
		e.Names = append(e.Names, r.Names.Own...)
	}
	for _, p := range r.Ports {
		e.Ports = append(e.Ports, fmt.Sprintf("%s:%d/%s", console.Where(p.HostIP, p.HostPort, p.HostPortEnd), p.ContainerPort, p.Protocol))
	}
	return e
}

func (w *watcher) say(e event) error {
	var err error
	switch w.format {
	case console.JSON:
		err = json.NewEncoder(w.out).Encode(e)
	case console.YAML:
		_, err = io.WriteString(w.out, "---\n")
		err = errors.Join(err, (&console.Output{Format: console.YAML}).Print(w.out, e, nil))
	default:
		colour := map[string]console.Colour{"attached": console.Green, "detached": console.Red, "changed": console.Yellow}[e.Event]
		what := fmt.Sprintf("%-8s", e.Event)
		if colour != 0 {
			what = console.Paint(w.out, colour, what)
		}
		line := fmt.Sprintf("%s %s %s %s %s", e.Time.Format("15:04:05.000"), what, e.Network, e.Container, e.Interface)
		for _, part := range []struct {
			word string
			all  []string
		}{{"", e.Addresses}, {"names", e.Names}, {"ports", e.Ports}} {
			if len(part.all) > 0 {
				line += " " + strings.TrimSpace(part.word+" "+strings.Join(part.all, " "))
			}
		}
		_, err = fmt.Fprintln(w.out, line)
	}
	if err == nil && w.left > 0 {
		if w.left--; w.left == 0 {
			err = errEnough
		}
	}
	return err
}
