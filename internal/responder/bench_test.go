package responder

import (
	"context"
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

// BenchmarkFirst makes maps and program, and removes them: what the first ADD and the last DEL
// of a host take longer.
func BenchmarkFirst(b *testing.B) {
	r, _ := newResponder(b)
	for b.Loop() {
		if err := r.Available(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMember is what an ADD and a DEL take longer beside a thousand members, without the
// filter.
func BenchmarkMember(b *testing.B) {
	r, _ := newResponder(b)
	for i := range 1000 {
		put(b, r, member("web", fmt.Sprintf("c%d", i), 100+i, fmt.Sprintf("10.9.%d.%d", i/250, i%250+1)))
	}
	m := member("web", "new", 5000, "10.9.9.9")
	m.Names = append(m.Names, "6f2d1c9b4a70")
	for b.Loop() {
		put(b, r, m)
		if err := r.Remove(context.Background(), &m, true); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnswer is the program alone, with ten thousand names.
func BenchmarkAnswer(b *testing.B) {
	r, l := newResponder(b)
	for i := range 10000 {
		put(b, r, member("web", fmt.Sprintf("c%d", i), loopback, fmt.Sprintf("10.9.%d.%d", i/250, i%250+1)))
	}
	for _, name := range []string{"c77.", "foreign.example.com.", "c77.libnet.internal."} {
		b.Run(name, func(b *testing.B) {
			q := query(name, dns.TypeA)
			m, err := q.Pack()
			if err != nil {
				b.Fatal(err)
			}
			p := packet(from4, to4, 4321, m, partial)
			for b.Loop() {
				run(b, l, p)
			}
		})
	}
}
