package responder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/libnet-cni/libnet/internal/bpf"
)

// hostileNames are what the program under fuzzing knows; the asker is on web only.
func hostileNames(t testing.TB) *links {
	t.Helper()
	r, l := newResponder(t)
	put(t, r, member("web", "c1", loopback, "10.9.0.2"), member("web", "db", 11, "10.9.0.3", "fd09::3"), member("other", "secret", 12, "10.7.0.2"))
	return l
}

// right is what may be answered, by name and type.
var right = map[string]string{
	"db. A": "10.9.0.3", "db. AAAA": "fd09::3", "c1. A": "10.9.0.2", "c1. AAAA": "", "db.web. A": "10.9.0.3", "tasks.db. A": "10.9.0.3",
	"gateway. A": "",
}

// seeds are packets from which others are made.
func seeds(t testing.TB) (all [][]byte) {
	t.Helper()
	for name := range right {
		for _, edns := range []bool{false, true} {
			q := query(strings.Fields(name)[0], dns.StringToType[strings.Fields(name)[1]])
			if edns {
				q.SetEdns0(1232, true)
			}
			b, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []checksum{whole, partial} {
				all = append(all, packet(from4, to4, 999, b, s), packet(from6, to6, 999, b, s))
			}
		}
	}
	return all
}

// judge has the program look at a packet: it passes unchanged, or is answered rightly.
func judge(t testing.TB, l *links, sent []byte) {
	t.Helper()
	if len(sent) < 14 { // no frame
		return
	}
	verdict, out, err := bpf.Run(l.program, sent, nil, 4096)
	if err != nil {
		return // the kernel takes no such frame
	}
	if verdict == passed {
		if !bytes.Equal(out, sent) {
			t.Fatalf("%x was changed to %x, and goes on", sent, out)
		}
		return
	}
	if verdict != redirected {
		t.Fatalf("%x: verdict %d", sent, verdict)
	}
	ipLen := 20
	if sent[12] == 0x86 {
		ipLen = 40
	}
	udp := sent[14+ipLen:]
	udp = udp[:binary.BigEndian.Uint16(udp[4:])]
	if binary.BigEndian.Uint16(udp[2:]) != 53 {
		t.Fatalf("%x: answered for port %x", sent, udp[2:4])
	}
	var q dns.Msg
	if err := q.Unpack(udp[8:]); err != nil && q.IsEdns0() == nil { // what is in OPT is of no concern
		t.Fatalf("%x: answered, though it is no message: %v", sent, err)
	}
	if q.Response || q.Opcode != dns.OpcodeQuery || q.Truncated || len(q.Question) != 1 || len(q.Answer)+len(q.Ns) > 0 || q.Question[0].Qclass != dns.ClassINET {
		t.Fatalf("answered: %v", &q)
	}
	m := checkAnswer(t, sent, out, &q)
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Name != q.Question[0].Name || h.Class != dns.ClassINET || h.Rrtype != q.Question[0].Qtype && q.Question[0].Qtype != dns.TypeANY {
			t.Fatalf("answer %v to %v", m, &q)
		}
	}
	got := strings.Join(addresses(m), " ")
	name := strings.ToLower(q.Question[0].Name)
	switch want, known := right[name+" "+dns.TypeToString[q.Question[0].Qtype]]; {
	case known && got != want:
		t.Fatalf("%v: %q, want %q", q.Question, got, want)
	case !known && got != "" && !mayBe(name, q.Question[0].Qtype, got):
		t.Fatalf("%v: %q", q.Question, got)
	}
}

// mayBe says that an answer is right for names that are the same container by another form.
func mayBe(name string, qtype uint16, got string) bool {
	for _, bare := range []string{"db.", "c1."} {
		for _, form := range []string{bare, bare + "web.", bare + "libnet.internal."} {
			if name == form || name == "tasks."+form {
				a, b := right[bare+" A"], right[bare+" AAAA"]
				return qtype == dns.TypeA && got == a || qtype == dns.TypeAAAA && got == b || qtype == dns.TypeANY && (got == a || got == b)
			}
		}
	}
	return strings.HasSuffix(name, ".arpa.")
}

// Whatever comes in is answered rightly or goes on as it came.
func TestHostilePackets(t *testing.T) {
	l := hostileNames(t)
	all := seeds(t)
	for _, sent := range all {
		judge(t, l, sent)
		for n := range len(sent) { // cut anywhere
			judge(t, l, sent[:n])
		}
		for n := range len(sent) { // each byte another one
			for _, b := range []byte{0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, sent[n] + 1, sent[n] ^ 0x20} {
				p := slices.Clone(sent)
				p[n] = b
				judge(t, l, p)
				judge(t, l, resum(p))
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		judge(t, l, mutate(random, slices.Clone(all[random.IntN(len(all))])))
	}
}

// resum makes the checksums of a packet right, so that not these have it refused.
func resum(p []byte) []byte {
	ipLen, addr := 20, 4
	if p[12] == 0x86 {
		ipLen, addr = 40, 16
	}
	if len(p) < 14+ipLen+8 {
		return p
	}
	ip, udp := p[14:14+ipLen], p[14+ipLen:]
	if addr == 4 {
		copy(ip[10:], []byte{0, 0})
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip)))
	}
	copy(udp[6:], []byte{0, 0})
	pseudo := sum(ip[ipLen-2*addr:]) + 17 + uint32(len(udp))
	x := ^fold(pseudo + sum(udp))
	if x == 0 {
		x = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], x)
	return p
}

func mutate(random *rand.Rand, p []byte) []byte {
	for range 1 + random.IntN(4) {
		switch at := random.IntN(len(p)); random.IntN(4) {
		case 0:
			p[at] = byte(random.Uint32())
		case 1:
			p = slices.Insert(p, at, byte(random.Uint32()), byte(random.Uint32()))
		case 2:
			p = slices.Delete(p, at, min(len(p), at+1+random.IntN(3)))
		case 3:
			p = append(p, p[at:]...)
		}
		if len(p) < 14 {
			break
		}
	}
	if len(p) > 14 && random.IntN(4) > 0 { // with lengths that fit
		ipLen := 20
		if p[12] == 0x86 {
			ipLen = 40
		}
		if n := len(p) - 14 - ipLen; n >= 8 {
			binary.BigEndian.PutUint16(p[14+ipLen+4:], uint16(n))
			if ipLen == 20 {
				binary.BigEndian.PutUint16(p[16:], uint16(n+20))
			} else {
				binary.BigEndian.PutUint16(p[18:], uint16(n))
			}
		}
		p = resum(p)
	}
	return p
}

func FuzzProgram(f *testing.F) {
	l := hostileNames(f)
	for _, sent := range seeds(f) {
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		judge(t, l, sent)
		if len(sent) > 14 {
			judge(t, l, resum(slices.Clone(sent)))
		}
	})
}

// With ten thousand names each is answered.
func TestManyNames(t *testing.T) {
	r, l := newResponder(t)
	const many = 10000
	for i := range many {
		put(t, r, member("web", fmt.Sprint("c", i), loopback+i, fmt.Sprintf("10.9.%d.%d", i/250, i%250+1)))
	}
	for i := 0; i < many; i += 7 {
		m := ask(t, l, query(fmt.Sprintf("c%d.web", i), dns.TypeA))
		if want := fmt.Sprintf("10.9.%d.%d", i/250, i%250+1); m == nil || strings.Join(addresses(m), " ") != want {
			t.Fatalf("c%d: %v, want %s", i, m, want)
		}
	}
}

// Members that come and go at once under one name: each that is there is found, and none that has
// gone.
func TestAtOnce(t *testing.T) {
	r, l := newResponder(t)
	put(t, r, member("web", "c1", loopback, "10.9.0.1"))
	dir, err := r.dir() // of this thread's namespace: the others are elsewhere
	if err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 16, 60
	shared := func(i int) Member {
		m := member("web", fmt.Sprint("w", i), 100+i, fmt.Sprintf("10.9.1.%d", i+1))
		m.Names = append(m.Names, "api")
		return m
	}
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for i := range workers {
		wg.Go(func() {
			m, other := shared(i), &Responder{links: l, fixed: dir}
			for round := range rounds {
				_, err := other.Put(context.Background(), &m, nil)
				if err == nil && (round < rounds-1 || i%2 == 0) {
					err = other.Remove(context.Background(), &m, true)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	want := []string{}
	for i := range workers {
		if m := shared(i); i%2 == 1 {
			want = append(want, m.Addresses[0].String())
			if err := r.Verify(context.Background(), &m); err != nil {
				t.Error(err)
			}
		}
	}
	slices.Sort(want)
	if got := addresses(ask(t, l, query("api", dns.TypeA))); !slices.Equal(got, want) {
		t.Errorf("api is %v, want %v", got, want)
	}
}

// Of several addresses each is the first one in turn.
func TestTurns(t *testing.T) {
	r, l := newResponder(t)
	put(t, r, member("web", "c1", loopback, "10.9.0.1"))
	const many = 20 // three pages
	for i := range many {
		m := member("web", fmt.Sprint("w", i), 100+i, fmt.Sprintf("10.9.1.%d", i+1))
		m.Names = append(m.Names, "api")
		put(t, r, m)
	}
	first, seen := map[string]int{}, map[string]bool{}
	for range 120 * 3 {
		m := ask(t, l, query("api", dns.TypeA))
		if m == nil || len(m.Answer) == 0 || len(m.Answer) > slots {
			t.Fatalf("%v", m)
		}
		first[m.Answer[0].(*dns.A).A.String()]++
		for _, a := range addresses(m) {
			seen[a] = true
		}
	}
	if len(first) != many || len(seen) != many {
		t.Errorf("%d of %d are there, %d of them first: %v", len(seen), many, len(first), first)
	}
}

// All that a member had goes with it, however little is known of it; others' stays.
func TestRemove(t *testing.T) {
	ctx := context.Background()
	for _, complete := range []bool{true, false} {
		r, l := newResponder(t)
		gone := member("web", "gone", 12, "10.9.0.3", "fd09::3")
		gone.Names = append(gone.Names, "api")
		stays := member("web", "stays", loopback, "10.9.0.4")
		stays.Names = append(stays.Names, "api")
		put(t, r, stays, gone)
		less := gone
		if !complete {
			less = Member{Owner: gone.Owner, Network: gone.Network, Container: gone.Container}
		}
		if err := r.Remove(ctx, &less, complete); err != nil {
			t.Fatal(err)
		}
		if m := ask(t, l, query("gone", dns.TypeA)); m != nil {
			t.Errorf("complete %v: gone is %v", complete, m)
		}
		if m := ask(t, l, query("3.0.9.10.in-addr.arpa", dns.TypePTR)); m != nil {
			t.Errorf("complete %v: the address is %v", complete, m)
		}
		if m := ask(t, l, query("api", dns.TypeA)); m == nil || len(m.Answer) != 1 {
			t.Errorf("complete %v: api is %v", complete, m)
		}
		left, err := r.Strays(ctx, false, func() (Known, error) { return Known{Owners: []string{stays.Owner}}, nil })
		if err != nil || len(left) > 0 {
			t.Errorf("complete %v: left %v %v", complete, left, err)
		}
		left, err = r.Strays(ctx, true, func() (Known, error) { return Known{}, nil })
		if err != nil || len(left) == 0 {
			t.Errorf("complete %v: strays %v %v", complete, left, err)
		}
		dir, err := r.dir()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(ctx, dir, false); !errors.Is(err, errNone) {
			t.Errorf("pins are left: %v", err)
		}
	}
}
