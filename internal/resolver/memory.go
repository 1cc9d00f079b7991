package resolver

import (
	"sync"
	"sync/atomic"
)

// memory has the answers to queries over UDP of containers that are on one network with
// names only. It is emptied whenever the network changes.
type memory struct {
	mu    sync.RWMutex
	of    map[string]remembered // by the query, without its ID
	bytes int                   // of all messages
}

type remembered struct {
	outcome Outcome
	series
}

// series is the answers to a query, which differ in the order of records and come in
// turns. None: not known.
type series struct {
	messages [][]byte
	turn     *atomic.Uint32
}

const (
	// mostInTurn is how many orders of an answer are remembered.
	mostInTurn = 16
	// longestQuery is what is remembered, in bytes: random cookies and padding are not.
	longestQuery = 128
	// mostBytes is what a network's memory has at most.
	mostBytes = 4 << 20
)

// recall returns the answer to a query, in room.
func (m *memory) recall(query, room []byte) (Reply, bool) {
	if len(query) < headSize || len(query) > longestQuery {
		return Reply{}, false
	}
	m.mu.RLock()
	r, there := m.of[string(query[2:])]
	m.mu.RUnlock()
	if !there {
		return Reply{}, false
	}
	at := 0
	if r.turn != nil {
		at = next(r.turn, len(r.messages))
	}
	b := append(room[:0], r.messages[at]...)
	b[0], b[1] = query[0], query[1] // the ID
	return Reply{r.outcome, b}, true
}

// keep remembers the answers to a query.
func (m *memory) keep(query []byte, o Outcome, s series) {
	if len(s.messages) == 0 || len(query) > longestQuery {
		return
	}
	size := len(query)
	for _, one := range s.messages {
		size += len(one)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil || m.bytes+size > mostBytes {
		m.of, m.bytes = map[string]remembered{}, 0
	}
	m.of[string(query[2:])] = remembered{o, s}
	m.bytes += size
}

func (m *memory) forget() { m.of, m.bytes = nil, 0 }
