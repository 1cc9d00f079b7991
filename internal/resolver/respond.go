package resolver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	// ttl of all answers, in seconds: a container may go at any time, and to ask
	// again costs the asker microseconds.
	ttl = 0
	// largest answer over UDP: what passes the smallest MTU of IPv6 (DNS flag day
	// 2020). A container may ask for less (RFC 6891), not for more.
	largestUDP = 1232
	// plainUDP is the limit for an asker that names none (RFC 1035).
	plainUDP = dns.MinMsgSize
	// headSize is that of a message's head (RFC 1035).
	headSize = 12
)

// Transport is how a query came.
type Transport int

// The transports.
const (
	UDP Transport = iota
	TCP
)

// Outcome says what became of a query.
type Outcome int

// The outcomes. All but Foreign have an answer.
const (
	Foreign   Outcome = iota // for another server, or no query that can be read
	Answered                 // with addresses or names
	NoData                   // the name is known, and has none of what was asked
	NoName                   // nothing of that name in our domain
	Truncated                // too long for UDP: the asker asks again over TCP
	// Outcomes is how many there are.
	Outcomes int = iota
)

// String is the outcome in one word.
func (o Outcome) String() string {
	return [Outcomes]string{"foreign", "answered", "nodata", "nxdomain", "truncated"}[o]
}

// Reply is the answer to a query.
type Reply struct {
	Outcome Outcome
	Message []byte // nil if Foreign
}

// QuestionOf returns the name and the type that a query asks for, as "web." and "AAAA";
// empty if it cannot be read.
func QuestionOf(query []byte) (name, qtype string) {
	var q dns.Msg
	if err := q.Unpack(query); err != nil || len(q.Question) != 1 {
		return "", ""
	}
	return q.Question[0].Name, dns.Type(q.Question[0].Qtype).String()
}

// Query is one of a container.
type Query struct {
	// Bridge of this host by which it came; empty: not known.
	Bridge  string
	From    netip.Addr
	Message []byte
	By      Transport
}

// Answer answers a query of whichever container it is from, and says which one. The
// message may be in room. It remembers answers while the network stays as it is.
func (t *Table) Answer(q Query, room []byte) (Reply, Asker) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s, known := t.source(q.Bridge, q.From)
	if !known {
		return Reply{Outcome: Foreign}, Asker{}
	}
	a, only := s.asker(), s.container.only
	if only == nil || q.By != UDP {
		r, _ := t.respond(a, q.Message, q.By)
		return r, a
	}
	if r, there := only.memory.recall(q.Message, room); there {
		return r, a
	}
	r, again := t.respond(a, q.Message, q.By)
	only.memory.keep(q.Message, r.Outcome, again)
	return r, a
}

// Respond answers a query that a container sent. A query that is for another
// server is Foreign, and so is one that cannot be read: no answer then comes from
// here.
func (t *Table) Respond(a Asker, query []byte, by Transport) Reply {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, _ := t.respond(a, query, by)
	return r
}

// respond also says what the answers to the same query are: all of them, in turns. Of
// some queries that is not known.
func (t *Table) respond(a Asker, query []byte, by Transport) (Reply, series) {
	if len(query) < headSize || query[2]&0xf8 != 0 { // a response, or no standard query
		return Reply{Outcome: Foreign}, series{}
	}
	var q dns.Msg
	if err := q.Unpack(query); err != nil || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return Reply{Outcome: Foreign}, series{}
	}
	answer, outcome := t.lookUp(a, q.Question[0])
	if outcome == Foreign {
		return Reply{Outcome: Foreign}, series{}
	}
	first := answer.inTurn()
	m, outcome := pack(&q, answer, outcome, by)
	if m == nil { // the name was readable, so this cannot be
		return Reply{Outcome: Foreign}, series{}
	}
	if outcome != Answered && outcome != NoData || answer.unsteady || answer.often() > mostInTurn {
		return Reply{outcome, m}, series{}
	}
	again := series{turn: answer.turn, messages: make([][]byte, answer.often())}
	again.messages[first] = m
	for range again.messages[1:] {
		answer.rotate()
		first = (first + 1) % len(again.messages)
		again.messages[first], _ = pack(&q, answer, outcome, by)
	}
	return Reply{outcome, m}, again
}

// pack makes a message; nil if it cannot be.
func pack(q *dns.Msg, a answer, outcome Outcome, by Transport) ([]byte, Outcome) {
	m := reply(q, outcome)
	m.Answer, m.Extra = slices.Clone(a.records), append(m.Extra, a.extra...)
	m.Truncate(limit(q, by))
	if m.Truncated {
		outcome = Truncated
	}
	b, err := m.Pack()
	if err != nil {
		return nil, Foreign
	}
	return b, outcome
}

// reply is the head of an answer. The question goes back with the case that it
// came in, by which askers know their answers.
func reply(q *dns.Msg, outcome Outcome) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable, m.Compress = true, true, true
	if outcome == NoName {
		m.Rcode = dns.RcodeNameError
	}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(largestUDP, o.Do())
		if o.Version() != 0 {
			m.IsEdns0().SetExtendedRcode(dns.RcodeBadVers)
		}
	}
	return m
}

func limit(q *dns.Msg, by Transport) int {
	if by == TCP {
		return dns.MaxMsgSize
	}
	if o := q.IsEdns0(); o != nil {
		return int(min(max(o.UDPSize(), plainUDP), largestUDP))
	}
	return plainUDP
}

// lookUp answers a question.
func (t *Table) lookUp(a Asker, q dns.Question) (answer, Outcome) {
	nets := t.networksOf(a)
	if len(nets) == 0 {
		return answer{}, Foreign
	}
	name := strings.TrimSuffix(lower(q.Name), ".")
	if addr, is := reverse(name); is {
		return pointer(nets, addr, q)
	}
	if port, rest, is := service(name); is {
		return serve(nets, port, rest, q)
	}
	f, known := find(nets, name)
	if !known {
		if owned(nets, name) {
			return absent(nets, name)
		}
		return answer{}, Foreign
	}
	return f.answer(q)
}

// absent is the answer for a name of our domain that is not there. The domain
// itself, and a name with others below it, exist without records (RFC 8020).
func absent(nets []*network, name string) (answer, Outcome) {
	for _, n := range nets {
		if name == n.domain {
			return answer{}, NoData
		}
		sub, ok := before(name, n.domain)
		if !ok {
			continue
		}
		for known := range n.byName {
			if _, below := before(known, sub); below {
				return answer{}, NoData
			}
		}
	}
	return answer{}, NoName
}

func result(records []dns.RR) (answer, Outcome) {
	if len(records) == 0 {
		return answer{}, NoData
	}
	return answer{records: records}, Answered
}

// pointer answers for the name of an address. Of addresses that no container of
// the asker's networks has, other servers may know.
func pointer(nets []*network, addr netip.Addr, q dns.Question) (answer, Outcome) {
	name, known := nameOf(nets, addr)
	if !known {
		return answer{}, Foreign
	}
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return answer{}, NoData
	}
	return result([]dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(name)}})
}

// serve answers for the port of a service: one record for each address that the
// name stands for would be the same record, so there is one, with the addresses
// beside it.
func serve(nets []*network, port uint16, rest string, q dns.Question) (answer, Outcome) {
	f, known := find(nets, rest)
	switch {
	case !known && owned(nets, rest):
		return answer{}, NoName
	case !known:
		return answer{}, Foreign
	case q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY:
		return answer{}, NoData
	}
	target := dns.Fqdn(rest)
	a, outcome := result([]dns.RR{&dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Port: port, Target: target}})
	var steady bool
	a.extra, steady = f.any(target)
	a.unsteady = !steady
	return a, outcome
}
