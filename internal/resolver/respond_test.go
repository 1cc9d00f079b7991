package resolver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func addrs(all ...string) (parsed []netip.Addr) {
	for _, a := range all {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

// lab has two networks with names, one without, and one of another host's container.
//
//	front: web (v4, v6), db (v4), api twice      domain lab.internal
//	back:  db, lone                              no domain
//	plain: web, without names
func lab() *Table {
	t := new(Table)
	gw := addrs("10.1.0.1", "fd01::1")
	for _, e := range []Endpoint{
		{Network: "front", Container: "c-web", Names: []string{"Web", "www.example.test"}, Addresses: addrs("10.1.0.10", "fd01::10")},
		{Network: "front", Container: "c-db", Names: []string{"db"}, Addresses: addrs("10.1.0.11")},
		{Network: "front", Container: "c-api1", Names: []string{"api1", "api"}, Addresses: addrs("10.1.0.21")},
		{Network: "front", Container: "c-api2", Names: []string{"api2", "api"}, Addresses: addrs("10.1.0.22", "fd01::22")},
		{Network: "front", Container: "c-far", Names: []string{"far"}, Addresses: addrs("10.1.9.9")},
	} {
		e.Domain, e.Gateways, e.IfName, e.Bridge = "lab.internal", gw, "eth0", "br-front"
		if e.Container == "c-far" {
			e.Bridge = ""
		}
		t.Put(e)
	}
	for _, e := range []Endpoint{
		{Container: "c-db", Names: []string{"db", "secret"}, Addresses: addrs("10.2.0.11")},
		{Container: "c-lone", Names: []string{"lone"}, Addresses: addrs("10.2.0.12")},
	} {
		e.Network, e.IfName, e.Bridge, e.Gateways = "back", "eth1", "br-back", addrs("10.2.0.1")
		t.Put(e)
	}
	t.Put(Endpoint{Network: "plain", Container: "c-web", IfName: "eth2", Bridge: "br-plain", Addresses: addrs("10.3.0.10")})
	t.Put(Endpoint{Network: "plain", Container: "c-other", IfName: "eth0", Bridge: "br-plain", Addresses: addrs("10.3.0.11")})
	return t
}

var (
	web   = Asker{Container: "c-web", Network: "front"}
	db    = Asker{Container: "c-db", Network: "front"}
	lone  = Asker{Container: "c-lone", Network: "back"}
	other = Asker{Container: "c-other", Network: "plain"}
)

// ask returns the outcome and the answers, as "A 10.1.0.1", in order of text.
func ask(t testing.TB, table *Table, a Asker, name, qtype string) string {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	r := table.Respond(a, wire, UDP)
	if r.Outcome == Foreign {
		if r.Message != nil {
			t.Errorf("%s %s: a query for another server has an answer", name, qtype)
		}
		return Foreign.String()
	}
	var m dns.Msg
	if err := m.Unpack(r.Message); err != nil {
		t.Fatalf("%s %s: %v", name, qtype, err)
	}
	if m.Id != q.Id || !m.Response || m.Question[0] != q.Question[0] || (m.Rcode == dns.RcodeNameError) != (r.Outcome == NoName) {
		t.Errorf("%s %s: the answer %v does not fit the question", name, qtype, m)
	}
	var all []string
	for _, rr := range m.Answer {
		if rr.Header().Ttl > 5 {
			t.Errorf("%s: TTL %d, want 5 at most", name, rr.Header().Ttl)
		}
		all = append(all, strings.TrimPrefix(strings.Join(strings.Fields(rr.String())[3:], " "), "IN "))
	}
	slices.Sort(all)
	return strings.Join(append([]string{r.Outcome.String()}, all...), " ")
}

// Each client asks for each name, and has this answer.
func TestRespond(t *testing.T) {
	table := lab()
	for _, c := range []struct {
		as          Asker
		name, qtype string
		want        string
	}{
		// The same network: by every name, in any case, with the network's name or domain behind it.
		{web, "db", "A", "answered A 10.1.0.11"},
		{web, "DB", "A", "answered A 10.1.0.11"},
		{db, "web", "A", "answered A 10.1.0.10"},
		{db, "WwW.eXample.TEST", "AAAA", "answered AAAA fd01::10"},
		{web, "db.front", "A", "answered A 10.1.0.11"},
		{web, "db.lab.internal", "A", "answered A 10.1.0.11"},
		{web, "tasks.api", "A", "answered A 10.1.0.21 A 10.1.0.22"},
		{web, "tasks.api.lab.internal", "A", "answered A 10.1.0.21 A 10.1.0.22"},
		{web, "web", "A", "answered A 10.1.0.10"},
		{web, "far", "A", "answered A 10.1.9.9"},
		{web, "api", "A", "answered A 10.1.0.21 A 10.1.0.22"},
		{web, "api", "AAAA", "answered AAAA fd01::22"},
		{db, "web", "ANY", "answered A 10.1.0.10 AAAA fd01::10"},
		// A family that the name has not, or another type: no data, and no forwarding.
		{web, "db", "AAAA", "nodata"},
		{web, "db", "MX", "nodata"},
		{web, "db", "HTTPS", "nodata"},
		// Two networks: the one by which the query came is first, and a container counts once.
		{db, "secret", "A", "answered A 10.2.0.11"},
		{db, "db", "A", "answered A 10.1.0.11"},
		{db, "db.back", "A", "answered A 10.2.0.11"},
		{Asker{Container: "c-db", Network: "back"}, "db", "A", "answered A 10.2.0.11"},
		{db, "secret", "AAAA", "nodata"},
		{db, "lone", "A", "answered A 10.2.0.12"},
		// Another network: nothing is known of it.
		{web, "lone", "A", "foreign"},
		{web, "secret", "A", "foreign"},
		{web, "secret.back", "A", "foreign"},
		{web, "db.back", "A", "foreign"},
		{lone, "web", "A", "foreign"},
		{lone, "web.front", "A", "foreign"},
		{lone, "db", "A", "answered A 10.2.0.11"},
		{other, "web", "A", "foreign"},
		{other, "web.plain", "A", "foreign"},
		{Asker{Container: "nowhere", Network: "front"}, "web", "A", "foreign"},
		// Other servers' names; a name is never completed by a guess.
		{web, "example.com", "A", "foreign"},
		{web, "db.example.com", "A", "foreign"},
		{web, "db.front.lab.internal", "A", "nxdomain"},
		{web, "d", "A", "foreign"},
		{web, ".", "NS", "foreign"},
		{web, "front", "A", "foreign"},
		{web, "xlab.internal", "A", "foreign"},
		{web, "tasks.", "A", "foreign"},
		// Our domain.
		{web, "nothing.lab.internal", "A", "nxdomain"},
		{web, "nothing.lab.internal", "AAAA", "nxdomain"},
		{web, "lab.internal", "SOA", "nodata"},
		{web, "example.test.lab.internal", "A", "nodata"}, // www is below it
		{lone, "nothing.lab.internal", "A", "foreign"},
		// The host.
		{web, "gateway", "A", "answered A 10.1.0.1"},
		{web, "gateway", "AAAA", "answered AAAA fd01::1"},
		{web, "host.lab.internal", "A", "answered A 10.1.0.1"},
		{web, "host.front", "A", "answered A 10.1.0.1"},
		{lone, "host.back", "A", "answered A 10.2.0.1"},
		{lone, "host", "A", "foreign"},
		{other, "gateway", "A", "foreign"},
		// Addresses.
		{web, "11.0.1.10.in-addr.arpa", "PTR", "answered PTR db.lab.internal."},
		{web, "1.0.1.10.in-addr.arpa", "PTR", "answered PTR host.lab.internal."},
		{web, "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa", "PTR", "answered PTR web.lab.internal."},
		{lone, "11.0.2.10.in-addr.arpa", "PTR", "answered PTR db.back."},
		{web, "12.0.2.10.in-addr.arpa", "PTR", "foreign"},
		{web, "8.8.8.8.in-addr.arpa", "PTR", "foreign"},
		{web, "11.0.1.10.in-addr.arpa", "A", "nodata"},
		{web, "1.10.in-addr.arpa", "PTR", "foreign"},
		// Services.
		{web, "_8080._tcp.db", "SRV", "answered SRV 0 0 8080 db."},
		{web, "_domain._udp.db.lab.internal", "SRV", "answered SRV 0 0 53 db.lab.internal."},
		{web, "_8080._tcp.db", "A", "nodata"},
		{web, "_8080._tcp.nothing.lab.internal", "SRV", "nxdomain"},
		{web, "_8080._tcp.lone", "SRV", "foreign"},
		{web, "_ldap._tcp.example.com", "SRV", "foreign"},
		{web, "_99999._tcp.db", "SRV", "foreign"},
	} {
		t.Run(fmt.Sprintf("%s %s as %s", c.qtype, c.name, c.as.Container), func(t *testing.T) {
			if diff := cmp.Diff(c.want, ask(t, table, c.as, c.name, c.qtype)); diff != "" {
				t.Error("(-want +got)\n" + diff)
			}
		})
	}
}

// A container that shares two networks with the asker has its addresses of the first
// one, and of the second one what the first has none of.
func TestTwoSharedNetworks(t *testing.T) {
	table := lab()
	table.Put(Endpoint{Network: "back", Container: "c-web", IfName: "eth1", Bridge: "br-back", Names: []string{"web"}, Addresses: addrs("10.2.0.10")})
	for _, c := range []struct{ by, qtype, want string }{
		{"front", "ANY", "answered A 10.1.0.10 AAAA fd01::10"},
		{"back", "ANY", "answered A 10.2.0.10 AAAA fd01::10"},
		{"back", "AAAA", "answered AAAA fd01::10"},
	} {
		if got := ask(t, table, Asker{Container: "c-db", Network: c.by}, "web", c.qtype); got != c.want {
			t.Errorf("%s by %s: %s, want %s", c.qtype, c.by, got, c.want)
		}
	}
}

// A message that is no query for an address of the internet goes to the server it was for.
func TestRespondToOthers(t *testing.T) {
	for name, change := range map[string]func(*dns.Msg){
		"a response":    func(m *dns.Msg) { m.Response = true },
		"a notify":      func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"an update":     func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate },
		"class CHAOS":   func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"two questions": func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"no question":   func(m *dns.Msg) { m.Question = nil },
	} {
		q := new(dns.Msg)
		q.SetQuestion("db.", dns.TypeA)
		change(q)
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if r := lab().Respond(web, wire, UDP); r.Outcome != Foreign || r.Message != nil {
			t.Errorf("%s: %+v, want it left alone", name, r)
		}
	}
}

// The case of the question comes back: askers hide random bits in it.
func TestCaseComesBack(t *testing.T) {
	q := new(dns.Msg)
	q.SetQuestion("dB.LaB.inTernaL.", dns.TypeA)
	wire, _ := q.Pack()
	var m dns.Msg
	if err := m.Unpack(lab().Respond(web, wire, UDP).Message); err != nil {
		t.Fatal(err)
	}
	if m.Question[0].Name != "dB.LaB.inTernaL." || m.Answer[0].Header().Name != "dB.LaB.inTernaL." {
		t.Errorf("got %v", m)
	}
}

// Each of several containers comes first in turn, and IPv6 has turns of its own:
// askers ask for both families, one after the other.
func TestTurns(t *testing.T) {
	table := lab()
	first := map[string]int{}
	for range 100 {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			q := new(dns.Msg)
			q.SetQuestion("api.", qtype)
			wire, _ := q.Pack()
			var m dns.Msg
			if err := m.Unpack(table.Respond(web, wire, UDP).Message); err != nil {
				t.Fatal(err)
			}
			if a, is := m.Answer[0].(*dns.A); is {
				first[a.A.String()]++
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"10.1.0.21": 50, "10.1.0.22": 50}, first); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
}

// An answer fits what the asker takes, and says so if something is missing.
func TestSizes(t *testing.T) {
	table := new(Table)
	for i := range 200 {
		table.Put(Endpoint{Network: "n", Container: fmt.Sprint(i), IfName: "eth0", Bridge: "br", Names: []string{"all"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})}})
	}
	for _, c := range []struct {
		edns uint16 // 0: none
		by   Transport
		most int
		all  bool
	}{
		{0, UDP, 512, false}, {100, UDP, 512, false}, {900, UDP, 900, false}, {1232, UDP, 1232, false}, {65535, UDP, 1232, false},
		{0, TCP, 65535, true}, {512, TCP, 65535, true},
	} {
		q := new(dns.Msg)
		q.SetQuestion("all.", dns.TypeA)
		if c.edns > 0 {
			q.SetEdns0(c.edns, true)
		}
		wire, _ := q.Pack()
		r := table.Respond(Asker{Container: "0", Network: "n"}, wire, c.by)
		var m dns.Msg
		if err := m.Unpack(r.Message); err != nil {
			t.Fatal(err)
		}
		if len(r.Message) > c.most || m.Truncated == c.all || (r.Outcome == Truncated) == c.all || c.all != (len(m.Answer) == 200) || len(m.Answer) < 10 {
			t.Errorf("EDNS %d: %d bytes, %d answers, truncated %v, %s", c.edns, len(r.Message), len(m.Answer), m.Truncated, r.Outcome)
		}
		if (m.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("EDNS %d: the answer has %v", c.edns, m.IsEdns0())
		}
	}
}

// Records come and go, and the table ends as it began.
func TestPutAndDelete(t *testing.T) {
	table := lab()
	if _, ok := table.Asker("br-front", addrs("10.1.0.10")[0]); !ok {
		t.Error("web is not known by its address")
	}
	if _, ok := table.Asker("br-back", addrs("10.1.0.10")[0]); ok {
		t.Error("web is known behind a bridge that it is not attached to")
	}
	for bridge, want := range map[string]bool{"br-front.7": true, "br-front.": false, "br-front.x": false, "br-fron.7": false, ".7": false} {
		if _, ok := table.Asker(bridge, addrs("10.1.0.10")[0]); ok != want {
			t.Errorf("by %q: %v, want %v", bridge, ok, want)
		}
	}
	if a, ok := table.Asker("", addrs("10.1.0.10")[0]); !ok || a.Container != "c-web" {
		t.Errorf("web by its address alone: %v %v", a, ok)
	}
	table.Put(Endpoint{Network: "twin", Container: "c-twin", IfName: "eth0", Bridge: "br-twin", Addresses: addrs("10.1.0.10")})
	if a, ok := table.Asker("", addrs("10.1.0.10")[0]); ok {
		t.Errorf("of two containers with the address there is %v", a)
	}
	if a, ok := table.Asker("br-twin", addrs("10.1.0.10")[0]); !ok || a.Container != "c-twin" {
		t.Errorf("the other one by its bridge: %v %v", a, ok)
	}
	table.Delete(Endpoint{Network: "twin", Container: "c-twin", IfName: "eth0"})
	if a, ok := table.AskerNamed("web"); !ok || a.Container != "c-web" || a.Network != "front" {
		t.Errorf("web by name: %v %v", a, ok)
	}
	if _, ok := table.AskerNamed("far"); ok {
		t.Error("a container of another host can ask here")
	}
	// An address of a container that goes later than its successor came.
	table.Put(Endpoint{Network: "front", Container: "c-new", IfName: "eth0", Bridge: "br-front", Names: []string{"db"}, Addresses: addrs("10.1.0.11")})
	table.Delete(Endpoint{Network: "front", Container: "c-db", IfName: "eth0"})
	if a, ok := table.Asker("br-front", addrs("10.1.0.11")[0]); !ok || a.Container != "c-new" {
		t.Errorf("10.1.0.11 is %v %v, want the new container", a, ok)
	}
	if got := ask(t, table, web, "db", "A"); got != "answered A 10.1.0.11" {
		t.Errorf("db: %s", got)
	}
	for _, e := range table.Endpoints() {
		table.Delete(e)
		table.Delete(e)
	}
	if len(table.all)+len(table.networks)+len(table.of)+len(table.from) > 0 {
		t.Errorf("something is left: %+v", table)
	}
	if got := ask(t, table, web, "db", "A"); got != "foreign" {
		t.Errorf("db in an empty table: %s", got)
	}
}

// While containers come and go under one name, an asker never gets an address of
// a container whose Delete has returned.
func TestManyAtOnce(t *testing.T) {
	table := lab()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			id := fmt.Sprint(worker)
			mine := netip.AddrFrom4([4]byte{10, 1, 7, byte(worker)})
			for range 200 {
				table.Put(Endpoint{Network: "front", Container: id, IfName: "eth0", Bridge: "br-front", Names: []string{"many"}, Addresses: []netip.Addr{mine}})
				if got := ask(t, table, web, "many", "A"); !strings.Contains(got+" ", mine.String()+" ") {
					t.Errorf("%s is not in %s", mine, got)
				}
				table.Delete(Endpoint{Network: "front", Container: id, IfName: "eth0"})
				if got := ask(t, table, web, "many", "A"); strings.Contains(got+" ", mine.String()+" ") {
					t.Errorf("%s is gone, and in %s", mine, got)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever comes, an answer can be read, fits the query, and is no larger than allowed.
func FuzzRespond(f *testing.F) {
	for _, name := range []string{"web.", "all.lab.internal.", "11.0.1.10.in-addr.arpa.", "_80._tcp.db.", "example.com."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeANY)
		wire, _ := q.Pack()
		f.Add(wire)
		q.SetEdns0(4096, true)
		wire, _ = q.Pack()
		f.Add(wire)
	}
	// A name that points to itself, and one that points behind the message.
	head := []byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	f.Add(append(slices.Clone(head), 0xc0, 12, 0, 1, 0, 1))
	f.Add(append(slices.Clone(head), 0xc0, 0xff, 0, 1, 0, 1))
	f.Add(append(slices.Clone(head), 63))
	f.Add([]byte{})
	table := lab()
	f.Fuzz(func(t *testing.T, query []byte) {
		r := table.Respond(web, query, UDP)
		if r.Outcome == Foreign {
			return
		}
		var m dns.Msg
		if err := m.Unpack(r.Message); err != nil || len(r.Message) > largestUDP || !m.Response || m.Id != uint16(query[0])<<8|uint16(query[1]) {
			t.Errorf("%x: answer %x, %v", query, r.Message, err)
		}
	})
}

// Which network alone a container is on is known whatever came and went before.
func TestOnlyNetwork(t *testing.T) {
	table, random := new(Table), rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		e := Endpoint{Network: fmt.Sprint("n", random.IntN(4)), Container: fmt.Sprint("c", random.IntN(4)), IfName: "eth0", Bridge: "br"}
		if random.IntN(2) == 0 {
			e.Names = []string{"name"}
		}
		if random.IntN(5) == 0 {
			e.Node, e.Bridge = "far", ""
		}
		if random.IntN(2) == 0 {
			table.Put(e)
		} else {
			table.Delete(e)
		}
		for id, c := range table.of {
			nets := table.networksOf(Asker{Container: id})
			if only := c.only; (only != nil) != (len(nets) == 1) || only != nil && only != nets[0] {
				t.Fatalf("step %d: container %s is on %d networks, only %v", i, id, len(nets), only)
			}
		}
	}
}

func BenchmarkRespond(b *testing.B) {
	for _, containers := range []int{10, 10000} {
		table := new(Table)
		for i := range containers {
			table.Put(Endpoint{Network: "n", Container: fmt.Sprint(i), IfName: "eth0", Bridge: "br", Domain: "lab.internal",
				Names: []string{fmt.Sprint("c", i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
		}
		for _, name := range []string{"c7.", "example.com."} {
			b.Run(fmt.Sprintf("%s of %d", name, containers), func(b *testing.B) {
				q := new(dns.Msg)
				q.SetQuestion(name, dns.TypeA)
				q.SetEdns0(1232, false)
				wire, _ := q.Pack()
				asks := Query{Bridge: "br", From: netip.MustParseAddr("10.1.0.1"), Message: wire, By: UDP}
				room := make([]byte, 0, 2048)
				b.ReportAllocs()
				for b.Loop() {
					table.Answer(asks, room)
				}
			})
		}
	}
}

// A remembered answer is the one that would be made anew: by each container, for each query,
// in turns, until the network changes.
func TestRemembered(t *testing.T) {
	table := lab()
	table.Put(Endpoint{Network: "front", Container: "c-two", IfName: "eth0", Bridge: "br-front", Names: []string{"api", "two"}, Addresses: addrs("10.1.0.77"), Gateways: addrs("10.1.0.1")})
	answers := func(q Query) string {
		r, _ := table.Answer(q, make([]byte, 0, 2048))
		if r.Message == nil {
			return r.Outcome.String()
		}
		var m dns.Msg
		if err := m.Unpack(r.Message); err != nil || r.Message[0] != q.Message[0] || r.Message[1] != q.Message[1] {
			t.Fatalf("%x: %v", r.Message, err)
		}
		text := []string{r.Outcome.String(), m.Question[0].Name}
		for _, rr := range append(m.Answer, m.Extra...) {
			text = append(text, strings.Join(strings.Fields(rr.String()), " "))
		}
		return strings.Join(text, "; ")
	}
	query := func(name string, qtype uint16, id uint16) Query {
		m := new(dns.Msg)
		m.SetQuestion(name, qtype)
		m.Id = id
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return Query{Bridge: "br-front", From: addrs("10.1.0.77")[0], Message: wire, By: UDP}
	}
	for _, name := range []string{"two.", "TWO.", "two.front.", "no.lab.internal.", "example.com.", "gateway.", "77.0.1.10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeANY} {
			first := answers(query(name, qtype, 1))
			for id := range uint16(3) {
				if got := answers(query(name, qtype, id+2)); got != first {
					t.Errorf("%s %d: %s, then %s", name, qtype, first, got)
				}
			}
		}
	}
	if len(table.networks["front"].memory.of) == 0 {
		t.Error("nothing is remembered")
	}
	// All that have a name come first as often, for each client and each message.
	first := map[string]int{}
	for i := range uint16(42) {
		q := query([]string{"api.", "API."}[i%2], dns.TypeA, i)
		parts := strings.Split(answers(q), "; ")
		first[parts[2][strings.LastIndex(parts[2], " "):]]++
	}
	if len(first) < 2 {
		t.Errorf("first: %v", first)
	}
	for a, n := range first {
		if n != 42/len(first) {
			t.Errorf("%s came first %d times of 42: %v", a, n, first)
		}
	}
	// A change is seen at once, and a memory that others fill stays small.
	before := answers(query("two.", dns.TypeA, 1))
	table.Put(Endpoint{Network: "front", Container: "c-two", IfName: "eth0", Bridge: "br-front", Names: []string{"two"}, Addresses: addrs("10.1.0.77", "10.1.0.78")})
	if got := answers(query("two.", dns.TypeA, 2)); got == before || !strings.Contains(got, "10.1.0.78") {
		t.Errorf("after a change: %s", got)
	}
	for i := range 1 << 16 {
		q := query("two.", dns.TypeA, 1)
		q.Message = append(q.Message, byte(i), byte(i>>8)) // what a reader does not mind
		table.Answer(q, nil)
	}
	if m := &table.networks["front"].memory; m.bytes > mostBytes || len(m.of) > mostBytes/50 {
		t.Errorf("%d queries of %d bytes are remembered", len(m.of), m.bytes)
	}
}
