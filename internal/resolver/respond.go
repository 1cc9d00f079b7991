package resolver

import (
	"net/netip"
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
)

// Transport is how a query came.
type Transport int

// The transports.
const (
	UDP Transport = iota
	TCP
)

// Outcome says what became of a query.
type Outcome string

// The outcomes. All but Foreign have an answer.
const (
	Foreign   Outcome = "foreign"   // for another server, or no query that can be read
	Answered  Outcome = "answered"  // with addresses or names
	NoData    Outcome = "nodata"    // the name is known, and has none of what was asked
	NoName    Outcome = "nxdomain"  // nothing of that name in our domain
	Truncated Outcome = "truncated" // too long for UDP: the asker asks again over TCP
)

// Name returns the question's name; empty if the query could not be read.
func (r Reply) Name() string { return r.Question.Name }

// Type returns the type of records that was asked for, as "AAAA"; empty if the query
// could not be read.
func (r Reply) Type() string {
	if r.Question.Name == "" {
		return ""
	}
	return dns.Type(r.Question.Qtype).String()
}

// Reply is the answer to a query.
type Reply struct {
	Outcome  Outcome
	Message  []byte // nil if Foreign
	Question dns.Question
}

// Respond answers a query that a container sent. A query that is for another
// server is Foreign, and so is one that cannot be read: no answer then comes from
// here.
func (t *Table) Respond(a Asker, query []byte, by Transport) Reply {
	if len(query) < 12 || query[2]&0xf8 != 0 { // a response, or no standard query
		return Reply{Outcome: Foreign}
	}
	var q dns.Msg
	if err := q.Unpack(query); err != nil || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return Reply{Outcome: Foreign}
	}
	r := Reply{Question: q.Question[0]}
	answer, outcome := t.lookUp(a, q.Question[0])
	if outcome == Foreign {
		r.Outcome = Foreign
		return r
	}
	m := reply(&q, outcome)
	m.Answer, m.Extra = answer.records, append(m.Extra, answer.extra...)
	m.Truncate(limit(&q, by))
	if r.Outcome = outcome; m.Truncated {
		r.Outcome = Truncated
	}
	var err error
	if r.Message, err = m.Pack(); err != nil { // the name was readable, so this cannot be
		return Reply{Outcome: Foreign, Question: r.Question}
	}
	return r
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

// answer is the records of an answer.
type answer struct{ records, extra []dns.RR }

// lookUp answers a question.
func (t *Table) lookUp(a Asker, q dns.Question) (answer, Outcome) {
	t.mu.RLock()
	defer t.mu.RUnlock()
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
	return result(addresses(q.Name, q.Qtype, f))
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
	a.extra = addresses(target, dns.TypeANY, f)
	return a, outcome
}

// addresses returns the records of a type, those of several containers in turns.
func addresses(name string, qtype uint16, f found) []dns.RR {
	var all []dns.RR
	for family, of := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if qtype != of && qtype != dns.TypeANY {
			continue
		}
		var rrs []dns.RR
		for _, a := range f.addresses {
			switch {
			case of == dns.TypeA && a.Is4():
				rrs = append(rrs, &dns.A{Hdr: header(name, of), A: a.AsSlice()})
			case of == dns.TypeAAAA && a.Is6():
				rrs = append(rrs, &dns.AAAA{Hdr: header(name, of), AAAA: a.AsSlice()})
			}
		}
		if f.at != nil && len(rrs) > 1 {
			first := int(f.at.turn[family].Add(1)-1) % len(rrs)
			rrs = append(rrs[first:len(rrs):len(rrs)], rrs[:first]...)
		}
		all = append(all, rrs...)
	}
	return all
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
