package resolver

import (
	"sync/atomic"

	"github.com/miekg/dns"
)

// answer is the records of an answer. With a turn they take turns to be the first one.
type answer struct {
	records, extra []dns.RR
	turn           *atomic.Uint32
	unsteady       bool // the next one differs, and not only by turn
}

// often is how many orders of the records there are.
func (a answer) often() int {
	if a.turn == nil {
		return 1
	}
	return len(a.records)
}

// inTurn puts the record first whose turn it is, and returns which one that is.
func (a answer) inTurn() int {
	if a.turn == nil {
		return 0
	}
	first := next(a.turn, len(a.records))
	for range first {
		a.rotate()
	}
	return first
}

func next(turn *atomic.Uint32, of int) int { return int((turn.Add(1) - 1) % uint32(of)) }

// rotate puts the first record last.
func (a answer) rotate() {
	if len(a.records) > 1 {
		first := a.records[0]
		copy(a.records, a.records[1:])
		a.records[len(a.records)-1] = first
	}
}

// answer has the records of a type; of any type those of IPv4 come first.
func (f found) answer(q dns.Question) (answer, Outcome) {
	if q.Qtype == dns.TypeANY {
		records, steady := f.any(q.Name)
		a, outcome := result(records)
		a.unsteady = !steady
		return a, outcome
	}
	a, outcome := result(f.records(q.Name, q.Qtype))
	a.turn = f.turn(q.Qtype, len(a.records))
	return a, outcome
}

// turn is that of some records of a type; nil: they have none.
func (f found) turn(qtype uint16, records int) *atomic.Uint32 {
	switch {
	case f.at == nil || records < 2:
		return nil
	case qtype == dns.TypeAAAA:
		return &f.at.turn[1]
	}
	return &f.at.turn[0]
}

// any returns the records of both families, and whether they are always the same.
func (f found) any(name string) (all []dns.RR, steady bool) {
	steady = true
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a := answer{records: f.records(name, qtype)}
		a.turn = f.turn(qtype, len(a.records))
		a.inTurn()
		all, steady = append(all, a.records...), steady && a.turn == nil
	}
	return all, steady
}

// records returns the records of a type.
func (f found) records(name string, qtype uint16) (all []dns.RR) {
	for _, a := range f.addresses {
		switch {
		case qtype == dns.TypeA && a.Is4():
			all = append(all, &dns.A{Hdr: header(name, qtype), A: a.AsSlice()})
		case qtype == dns.TypeAAAA && a.Is6():
			all = append(all, &dns.AAAA{Hdr: header(name, qtype), AAAA: a.AsSlice()})
		}
	}
	return all
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
