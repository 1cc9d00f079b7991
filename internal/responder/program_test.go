package responder

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// addresses are those of an answer, sorted.
func addresses(m *dns.Msg) (all []string) {
	for _, rr := range m.Answer {
		switch r := rr.(type) {
		case *dns.A:
			all = append(all, r.A.String())
		case *dns.AAAA:
			all = append(all, r.AAAA.String())
		case *dns.PTR:
			all = append(all, r.Ptr)
		}
	}
	slices.Sort(all)
	return all
}

// Each query is answered, or goes on, as this table says. The asker is c1, which is on the
// networks web and back.
func TestQueries(t *testing.T) {
	r, l := newResponder(t)
	shop := member("web", "shop", 12, "10.9.0.4")
	shop.Names = []string{"Shop", "6f2d1c9b4a70", "shop.prod"}
	put(t, r, member("web", "c1", loopback, "10.9.0.2", "fd09::2"), member("web", "db", 11, "10.9.0.3", "fd09::3"), shop,
		member("back", "c1", 13, "10.8.0.2"), member("back", "cache", 14, "10.8.0.9"), member("back", "db", 17, "10.8.0.3"),
		member("other", "secret", 15, "10.7.0.2"), member("web", "only6", 16, "fd09::6"))
	for _, row := range []struct {
		name  string
		qtype uint16
		want  string // "-": it goes on; "": no record
	}{
		{"db", dns.TypeA, "10.9.0.3"}, // the network's by which it came
		{"db", dns.TypeAAAA, "fd09::3"},
		{"db.web", dns.TypeA, "10.9.0.3"},
		{"db.back", dns.TypeA, "10.8.0.3"},
		{"db.libnet.internal", dns.TypeA, "10.9.0.3"},
		{"DB.LibNet.Internal", dns.TypeA, "10.9.0.3"},
		{"tasks.db", dns.TypeA, "10.9.0.3"},
		{"tasks.db.web", dns.TypeAAAA, "fd09::3"},
		{"tasks.tasks.db", dns.TypeA, "-"},
		{"tasks", dns.TypeA, "-"},
		{"shop", dns.TypeA, "10.9.0.4"},
		{"shop", dns.TypeAAAA, ""},
		{"shop.prod", dns.TypeA, "10.9.0.4"},
		{"6f2d1c9b4a70", dns.TypeA, "10.9.0.4"},
		{"shop", dns.TypeMX, ""},
		{"shop", dns.TypeHTTPS, ""},
		{"shop", dns.TypePTR, ""},
		{"shop", dns.TypeANY, "10.9.0.4"},
		{"only6", dns.TypeA, ""},
		{"only6", dns.TypeANY, "fd09::6"},
		{"c1", dns.TypeA, "10.9.0.2"},
		{"cache", dns.TypeA, "10.8.0.9"}, // of the container's other network
		{"secret", dns.TypeA, "-"},       // of a network that it is not on
		{"secret.other", dns.TypeA, "-"},
		{"secret.libnet.internal", dns.TypeA, "-"},
		{"d", dns.TypeA, "-"},
		{"db.", dns.TypeA, "10.9.0.3"},
		{"db.example.com", dns.TypeA, "-"},
		{"xdb", dns.TypeA, "-"},
		{"db.we", dns.TypeA, "-"},
		{"example.com", dns.TypeA, "-"},
		{"_http._tcp.db", dns.TypeSRV, "-"},
		{"3.0.9.10.in-addr.arpa", dns.TypePTR, "db.libnet.internal."},
		{"4.0.9.10.in-addr.arpa", dns.TypePTR, "shop.libnet.internal."},
		{"9.0.8.10.in-addr.arpa", dns.TypePTR, "cache.libnet.internal."},
		{"2.0.7.10.in-addr.arpa", dns.TypePTR, "-"},
		{"3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.d.f.ip6.arpa", dns.TypePTR, "db.libnet.internal."},
		{"3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.0.d.f.ip6.arpa", dns.TypePTR, "-"},
	} {
		t.Run(row.name+" "+dns.TypeToString[row.qtype], func(t *testing.T) {
			m := ask(t, l, query(row.name, row.qtype))
			got := "-"
			if m != nil {
				got = strings.Join(addresses(m), " ")
			}
			if got != row.want {
				t.Errorf("answer %q, want %q", got, row.want)
			}
			if m != nil && slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Ttl > 5 }) {
				t.Errorf("it may be kept: %v", m.Answer)
			}
		})
	}
}

// A client gets its question back byte by byte (0x20), and OPT if it sent one.
func TestQueryForms(t *testing.T) {
	r, l := newResponder(t)
	put(t, r, member("web", "c1", loopback, "10.9.0.2"), member("web", "db", 11, "10.9.0.3", "fd09::3"))
	plain := query("dB.LIBnet.InTernal", dns.TypeA)
	plain.RecursionDesired = false
	if m := ask(t, l, plain); m == nil || m.IsEdns0() != nil {
		t.Fatalf("answer %v", m)
	}
	for _, dnssec := range []bool{false, true} {
		q := query("Db", dns.TypeAAAA)
		q.SetEdns0(1232, dnssec)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"})
		q.CheckingDisabled = true
		m := ask(t, l, q)
		if m == nil || m.IsEdns0() == nil {
			t.Fatalf("answer %v, want one with EDNS", m)
		}
		if o := m.IsEdns0(); o.Do() != dnssec || o.Version() != 0 || len(o.Option) != 0 || !m.CheckingDisabled {
			t.Errorf("answer %v", m)
		}
	}
	b, err := query("db", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q dns.Msg
	if err := q.Unpack(b); err != nil {
		t.Fatal(err)
	}
	for _, s := range []checksum{whole, partial, none} {
		sent := packet(from4, to4, 5, b, s)
		if verdict, out := run(t, l, sent); verdict != redirected {
			t.Errorf("IPv4, checksum %d: verdict %d", s, verdict)
		} else {
			checkAnswer(t, sent, out, &q)
		}
		sent = packet(from6, to6, 5, b, s)
		switch verdict, out := run(t, l, sent); {
		case s == none && verdict != passed: // IPv6 has to have one
			t.Errorf("IPv6 without a checksum: verdict %d", verdict)
		case s != none && verdict != redirected:
			t.Errorf("IPv6, checksum %d: verdict %d", s, verdict)
		case s != none:
			checkAnswer(t, sent, out, &q)
		}
	}
}
