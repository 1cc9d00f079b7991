package netconf

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/model"
)

// The ranges come in the order host-local has them: runtime, single, list.
func TestSets(t *testing.T) {
	keys := `"ipam":{"type":"ipam-ln","SUBNET":"10.2.0.0/24","rangeStart":"10.2.0.5","ranges":[[{"subnet":"10.3.0.0/24"},{"Subnet":"10.4.0.0/24"}]]},
		"runtimeConfig":{"ipRanges":%s}`
	for _, ranges := range []string{`[[{"subnet":"10.1.0.0/24"}]]`, `[{"subnet":"10.1.0.0/24"}]`} {
		p, err := ReadPool(source(t, fmt.Sprintf(keys, ranges)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, set := range p.Config.Sets {
			for _, r := range set {
				got = append(got, fmt.Sprintf("%s from %s", r.Subnet, r.Start))
			}
			got = append(got, ";")
		}
		want := "10.1.0.0/24 from invalid IP ; 10.2.0.0/24 from 10.2.0.5 ; 10.3.0.0/24 from invalid IP 10.4.0.0/24 from invalid IP ;"
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("ipRanges %s (-want +got):\n%s", ranges, diff)
		}
	}
}

func TestRequestedAddresses(t *testing.T) {
	s := source(t, `"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd01::/64"}]]},
		"args":{"cni":{"ips":["10.1.0.6/24"]}},"runtimeConfig":{"ips":["fd01::7","10.1.0.6"]}`)
	s.Args["IP"] = "10.1.0.5"
	got, err := ReadPool(s)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got.Requested); s != "[10.1.0.5 10.1.0.6 fd01::7]" {
		t.Errorf("requested %s", s)
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# comment\nnameserver 10.0.0.1\nnameserver fd00::1\ndomain a.example\nsearch b.example c.example\noptions ndots:2 edns0\nnameserver\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readResolvConf(path)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(got)
	want := `{"Nameservers":["10.0.0.1","fd00::1"],"Domain":"a.example","Search":["b.example","c.example"],"Options":["ndots:2","edns0"]}`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAutoSubnets(t *testing.T) {
	p, err := ReadPool(source(t, `"ipam":{"ranges":[[{"subnet":"auto/24"}],[{"subnet":"fd01::/64"}]]}`))
	if err != nil {
		t.Fatal(err)
	}
	if want, ok := p.Wants[0]; len(p.Config.Sets) != 2 || !ok || want.Bits != 24 || want.IPv6 || len(p.Wants) != 1 {
		t.Errorf("%+v", p)
	}
	if err := made(source(t, `"ipam":{"ranges":[[{"subnet":"auto/24"}],[{"subnet":"fd01::/64"}]]}`)); err != nil {
		t.Error(err)
	}
	for keys, says := range map[string]string{
		`[[{"subnet":"auto/99"}]]`:                              `ipam.ranges[0][0].subnet: "auto/99"`,
		`[[{"subnet":"automatic"}]]`:                            `ipam.ranges[0][0].subnet: "automatic"`,
		`[[{"subnet":"auto"}],[{"subnet":"auto"}]]`:             `ipam.ranges[1][0].subnet`,
		`[[{"subnet":"auto","rangeStart":"10.1.0.5"}]]`:         `ipam.ranges[0][0].subnet`,
		`[[{"subnet":"auto"},{"subnet":"10.1.0.0/24"}]]`:        `ipam.ranges[0][0].subnet`,
		`[[{"subnet":"10.1.0.0/24"}],[{"subnet":"auto6/not"}]]`: `ipam.ranges[1][0].subnet: "auto6/not"`,
	} {
		err := made(source(t, `"ipam":{"ranges":`+keys+`}`))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %s", keys, err, says)
		}
	}
}

// made makes the pool of a configuration, as the plugins do.
func made(s Source) error {
	p, err := ReadPool(s)
	if err != nil {
		return err
	}
	if len(p.Wants) > 0 {
		_, err = engine.NewAutoPool(p.Config, p.Wants, p.Extra)
	} else {
		_, err = engine.NewPool(p.Config, p.Extra)
	}
	return p.NameError(err)
}

// Whatever the configuration holds, reading it neither panics nor hangs, and
// DEL's way of reading it never fails.
func FuzzConfiguration(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","name":"n","ipam":{"type":"ipam-ln","ranges":[[{"subnet":"10.1.0.0/24"}]]}}`)
	f.Add(`{"name":"n","ipam":{"subnet":"fd00::/64","routes":[{"dst":"::/0"}]},"prevResult":{"ips":[{"address":"10.1.0.2/24","interface":0}],"interfaces":[{"name":"eth0","sandbox":"x"}]}}`)
	f.Add(`{"cniVersion":"0.2.0","name":"n","prevResult":{"ip4":{"ip":"10.1.0.2/24"}},"cni.dev/valid-attachments":[{}]}`)
	f.Add(`{"cniVersion":"1.1.0","name":"n","prevResult":{"interfaces":[null],"ips":[null],"routes":[null]}}`)
	f.Add(`{"cniVersion":"0.4.0","name":"n","prevResult":{"interfaces":[null],"ips":[null],"routes":[null]}}`)
	f.Add(`{"cniVersion":"1.1.0","name":"n","ipam":{"subnet":"10.0.0.0/8","exclude":["10.0.0.0/9",7],"auxAddresses":{"a":"10.0.0.9","b":null},"cooldown":-1,"rebootPolicy":"keep","dataDir":"\u0000"}}`)
	f.Add(`{"name":"n","gatewaymod":"nat","GatewayMode":{"ipv5":"x"},"gatewayMode":1,"capabilities":{"portmappings":true},"ipam":{"type":"ipam-ln","range":[[{"subnett":1}]]}}`)
	f.Fuzz(func(t *testing.T, stdin string) {
		for _, p := range Plugins() {
			s, ok := sourceOf(stdin)
			if !ok {
				return
			}
			if line, err := Check(s.Conf, p); line != "" && (err != nil || strings.ContainsAny(line, "\n\r\x1b")) {
				t.Errorf("%s: %q, %v", p, line, err)
			}
			switch p {
			case IPAM:
				_ = made(s)
			case Portmap:
				_, _ = ReadPublish(s)
			default:
				_, _ = ReadNetwork(p, s)
			}
			_, _ = LooseNetwork(s), LoosePublish(s)
			if _, err := engine.NewPool(LoosePool(s), model.Addressing{}); err != nil {
				t.Errorf("LoosePool: %v", err)
			}
		}
	})
}

// A resolver file of any content is read to its bound, and no further.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nsearch a b\noptions ndots:5\ndomain x\n# c"))
	f.Add([]byte("nameserver\n\x00search \xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		dns, err := readResolvConf(path)
		if err != nil {
			return
		}
		for _, s := range append(append(dns.Nameservers, dns.Search...), dns.Options...) {
			if s == "" || strings.ContainsAny(s, " \t\n") {
				t.Errorf("read %q", s)
			}
		}
	})
}
