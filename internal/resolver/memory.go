package resolver

import (
	"slices"
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

// remembered is the answers to a query. They stand behind it in one piece of memory: to
// compare the query brings its answer to the processor.
type remembered struct {
	outcome Outcome
	size    int    // of each message
	all     string // the messages, in turns
	turn    *atomic.Uint32
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
		at = next(r.turn, len(r.all)/r.size) * r.size
	}
	b := append(room[:0], r.all[at:at+r.size]...)
	b[0], b[1] = query[0], query[1] // the ID
	return Reply{r.outcome, b}, true
}

// keep remembers the answers to a query.
func (m *memory) keep(query []byte, o Outcome, s series) {
	if len(s.messages) == 0 || len(query) > longestQuery {
		return
	}
	of := len(query) - 2
	all := slices.Clone(query[2:])
	for _, one := range s.messages {
		if len(one) != len(s.messages[0]) { // the same records in any order have one size
			return
		}
		all = append(all, one...)
	}
	text := string(all)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil || m.bytes+len(text) > mostBytes {
		m.of, m.bytes = map[string]remembered{}, 0
	}
	m.of[text[:of]] = remembered{o, len(s.messages[0]), text[of:], s.turn}
	m.bytes += len(text)
}

func (m *memory) forget() { m.of, m.bytes = nil, 0 }
