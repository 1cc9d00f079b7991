package cni

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/publish"
)

// callWith is an ADD with these keys beside the usual ones.
func callWith(t *testing.T, version, keys string) *Call {
	t.Helper()
	conf, err := jsonr.Parse([]byte(`{"cniVersion":"` + version + `","name":"net1",` + keys + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return &Call{Command: "ADD", ContainerID: "c1", IfName: "eth0", Network: "net1", Version: version, Conf: conf}
}

// A port that libnet refuses has the key of the configuration, and a port that is held
// its own code.
func TestPortErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code uint
		says string
	}{
		{&model.ConfigError{Key: "portMappings[1].hostPort", Value: "70000", Want: "want 1 to 65535"}, 7, "runtimeConfig.portMappings[1].hostPort: 70000: want 1 to 65535"},
		{&model.ConfigError{Key: "mtu", Value: "5"}, 7, "mtu: 5"},
		{&publish.PortHeldError{Owner: "libnet:net1/c2/eth0", Port: "tcp 0.0.0.0:8080"}, 101, `host port tcp 0.0.0.0:8080 is published by "libnet:net1/c2/eth0"`},
		{publish.ErrNoFreePort, 100, "no free port"},
	} {
		e := codeOf(tt.err, "ADD")
		if e.Code != tt.code || !strings.HasPrefix(e.Msg, tt.says) {
			t.Errorf("%v: code %d, %q; want %d, %q", tt.err, e.Code, e.Msg, tt.code, tt.says)
		}
	}
}

// A chosen port is told beside the result, of whatever version that is, and
// beside the ports that another plugin told of.
func TestResultNamesChosenPorts(t *testing.T) {
	got := []model.PortMapping{
		{Protocol: "tcp", HostPort: 40000, ContainerPort: 80},
		{Protocol: "udp", HostPort: 53, HostPortEnd: 54, ContainerPort: 53, HostIP: netip.MustParseAddr("192.0.2.1")},
	}
	want := `[{"hostPort":40000,"containerPort":80,"protocol":"tcp"},
		{"hostPort":53,"hostPortEnd":54,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.1"}]`
	made := &Result{Result: &types100.Result{CNIVersion: "1.1.0", IPs: []*types100.IPConfig{{Address: ipNet(netip.MustParsePrefix("10.1.0.2/24"))}}}}
	for _, version := range []string{"0.2.0", "0.4.0", "1.1.0"} {
		alone := printed(t, made, version)
		named := &Result{Result: made.Result}
		named.NamePorts([]model.PortMapping{{ContainerPort: 80}, {HostPort: 53}}, got)
		alone["portMappings"] = decoded(t, []byte(want))
		if diff := cmp.Diff(alone, printed(t, named, version)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
	}
	quiet := &Result{Result: made.Result}
	quiet.NamePorts([]model.PortMapping{{HostPort: 40000}, {HostPort: 53}}, got)
	if out := printed(t, quiet, "1.1.0"); out["portMappings"] != nil {
		t.Errorf("nothing was chosen, but told: %v", out)
	}
	passed := &Result{passed: []byte(`{"PortMappings":[{"hostPort":1}],"x":2}`)}
	passed.NamePorts([]model.PortMapping{{}}, got[:1])
	if diff := cmp.Diff(decoded(t, []byte(`{"x":2,"portMappings":[{"hostPort":1},{"hostPort":40000,"containerPort":80,"protocol":"tcp"}]}`)), any(printed(t, passed, "1.1.0"))); diff != "" {
		t.Errorf("passed (-want +got):\n%s", diff)
	}
}

// printed is a result as it comes out.
func printed(t *testing.T, r *Result, version string) map[string]any {
	t.Helper()
	var out bytes.Buffer
	if err := r.write(&out, version); err != nil {
		t.Fatal(err)
	}
	if bytes.Count(out.Bytes(), []byte("\n")) == 0 {
		t.Errorf("no end of line: %q", &out)
	}
	return decoded(t, out.Bytes()).(map[string]any)
}

// A chained plugin passes on what it does not know.
func TestPrevResult(t *testing.T) {
	const known = `"interfaces":[{"name":"eth0","sandbox":"/ns","x":1}],"ips":[{"address":"10.1.0.2/24","interface":0}],"vendor":{"b":2,"a":[1.50]}`
	for _, tt := range []struct{ name, prev, want string }{
		{"same version", `{"cniVersion":"1.0.0",` + known + `}`, `{"cniVersion":"1.0.0",` + known + `}`},
		{"no version", `{` + known + `}`, `{"cniVersion":"1.0.0",` + known + `}`},
		{"another version", `{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/ns"}],"ips":[{"version":"4","address":"10.1.0.2/24","interface":0}],"dns":{}}`,
			`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/ns"}],"ips":[{"interface":0,"address":"10.1.0.2/24"}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := callWith(t, "1.0.0", `"prevResult":`+tt.prev).PrevResult()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := r.write(&out, "1.0.0"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, []byte(tt.want)), decoded(t, out.Bytes())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for prev, says := range map[string]string{
		`null`:                   "prevResult: missing",
		`5`:                      "prevResult: 5: want an object",
		`{"cniVersion":7}`:       "prevResult.cniVersion: 7: want a string",
		`{"cniVersion":"9.9.9"}`: "prevResult:",
		`{"cniVersion":"0.4.0","interfaces":[3]}`: "interfaces[0]: 3: want an object",
	} {
		if r, err := callWith(t, "1.0.0", `"prevResult":`+prev).PrevResult(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v; want an error with %q", prev, r, err, says)
		}
	}
}

func TestPrevAddresses(t *testing.T) {
	const links = `"interfaces":[{"name":"br0"},{"name":"veth0"},{"name":"eth0","sandbox":"/ns"},{"name":"eth1","sandbox":"/ns"}],`
	for _, tt := range []struct {
		name, prev string
		want       []string // none: refused
	}{
		{"the first of each family", links + `"ips":[{"interface":2,"address":"10.1.0.2/24"},{"interface":2,"address":"fd01::2/64"},{"interface":2,"address":"10.1.1.2/24"}]`, []string{"10.1.0.2", "fd01::2"}},
		{"of this interface", links + `"ips":[{"interface":3,"address":"10.1.0.9/24"},{"interface":0,"address":"10.1.0.1/24"},{"interface":2,"address":"10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"of none by name", links + `"ips":[{"address":"10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"of one that is not there", links + `"ips":[{"interface":9,"address":"10.1.0.2/24"},{"interface":-1,"address":"fd01::2/64"}]`, []string{"10.1.0.2", "fd01::2"}},
		{"no interfaces", `"ips":[{"interface":2,"address":"10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"before 0.3.0", `"ip4":{"ip":"10.1.0.2/24"},"ip6":{"ip":"fd01::2/64"}`, []string{"10.1.0.2", "fd01::2"}},
		{"none", links + `"ips":[{"interface":1,"address":"10.1.0.2/24"}]`, nil},
		{"no ips", `"ips":null`, nil},
		{"no prefix", `"ips":[{"address":"10.1.0.2"}]`, nil},
		{"no address", `"ips":[{}]`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := callWith(t, "1.0.0", `"prevResult":{`+tt.prev+`}`).PrevAddresses()
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), "prevResult.ips") {
					t.Errorf("%v, %v; want an error with the key", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, a := range got {
				words = append(words, a.String())
			}
			if diff := cmp.Diff(tt.want, words); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever the runtime sends, what is passed on is JSON, and nothing is lost of it.
func FuzzPrevResult(f *testing.F) {
	for _, s := range []string{`{}`, `{"cniVersion":"1.0.0","a":"}","ips":[]}`, `{"CNIVERSION":"","portMappings":[1, {"x":[]}],"b":null}`, `{"ips":[{"address":"10.1.0.2/24"}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, prev string) {
		conf, err := jsonr.Parse([]byte(`{"prevResult":` + prev + `}`))
		if err != nil {
			return
		}
		c := &Call{Command: "ADD", Version: "1.0.0", IfName: "eth0", Conf: conf}
		r, err := c.PrevResult()
		if err != nil || r.Result != nil {
			return
		}
		if r.passed != nil && !json.Valid(r.passed) {
			t.Fatalf("not JSON: %s", r.passed)
		}
		before := len(splitObject(r.passed))
		r.NamePorts([]model.PortMapping{{}}, []model.PortMapping{{HostPort: 1, ContainerPort: 2, Protocol: "tcp"}})
		out := withPorts(r.passed, r.ports)
		if !json.Valid(out) || len(splitObject(out)) > before+1 {
			t.Fatalf("%s became %s", r.passed, out)
		}
		_, _ = c.PrevAddresses()
	})
}
