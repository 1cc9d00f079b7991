package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/pflag"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/names"
)

// nameSettings are the flags about names of containers.
type nameSettings struct {
	limit   int
	queries bool
}

// defaultLimit is far more than a container asks, and far less than the agent answers.
const defaultLimit = 10000

func (n *nameSettings) flags(f *pflag.FlagSet) {
	f.IntVar(&n.limit, "names-limit", defaultLimit, "how many DNS queries per `second` of one container are looked at; more pass untouched. 0: no limit")
	f.BoolVar(&n.queries, "log-queries", false, "log each DNS query of containers on networks with \"names\"")
}

// service answers queries for the networks whose records are in a directory.
func (n *nameSettings) service(stateDir string, log *slog.Logger) (*names.Service, error) {
	if n.limit < 0 {
		return nil, usagef("--names-limit %d: want 0 or more", n.limit)
	}
	moreThreads()
	return names.New(names.Config{StateDir: stateDir, Limit: n.limit, Queries: n.queries, Log: log}), nil
}

// moreThreads has more threads run Go code at once, for those that wait for queries. A thread in
// a system call still counts as one that runs; without more, the runtime looks every 20 µs for one
// to count no more, which costs a tenth of an answer.
func moreThreads() {
	const most = 4
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + min(before, most))
}

// runLocal answers for names of this host's containers, without etcd. Two agents on
// one host would each take the other's queries.
func (s *settings) runLocal(ctx context.Context, stderr io.Writer) error {
	log, err := s.logger(stderr)
	if err != nil {
		return err
	}
	answers, err := s.names.service(s.stateDir, log)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	calls, err := s.calls(host, log)
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(s.stateDir, "overlay", "agent.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return agent.New(agent.Config{StateDir: s.stateDir, Listen: s.listen, Names: answers, Calls: calls, Graph: s.graph(host), Log: log}).Run(ctx)
}
