package cni

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ipamCall(t *testing.T, keys string) *Call {
	t.Helper()
	stdin := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net1",%s}`, strings.ReplaceAll(keys, "DIR", t.TempDir()))
	conf, err := ParseObject([]byte(stdin))
	if err != nil {
		t.Fatal(err)
	}
	return &Call{Version: "1.1.0", Network: "net1", Args: Args{}, Stdin: []byte(stdin), Conf: conf}
}

// The ranges come in the order host-local has them: runtime, single, list.
func TestSets(t *testing.T) {
	keys := `"ipam":{"type":"ipam-ln","SUBNET":"10.2.0.0/24","rangeStart":"10.2.0.5","ranges":[[{"subnet":"10.3.0.0/24"},{"Subnet":"10.4.0.0/24"}]]},
		"runtimeConfig":{"ipRanges":%s}`
	for _, ranges := range []string{`[[{"subnet":"10.1.0.0/24"}]]`, `[{"subnet":"10.1.0.0/24"}]`} {
		call := ipamCall(t, fmt.Sprintf(keys, ranges))
		sets := call.ranges(call.Conf.Object("ipam")).sets
		if err := call.Conf.Err(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, set := range sets {
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
	call := ipamCall(t, `"ipam":{"dataDir":"DIR","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd01::/64"}]]},
		"args":{"cni":{"ips":["10.1.0.6/24"]}},"runtimeConfig":{"ips":["fd01::7","10.1.0.6"]}`)
	call.Args["IP"] = "10.1.0.5"
	_, got, err := call.Pool()
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got); s != "[10.1.0.5 10.1.0.6 fd01::7]" {
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

func TestOldVersionsHaveOneAddressPerFamily(t *testing.T) {
	call := ipamCall(t, `"ipam":{"dataDir":"DIR","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.2.0.0/24"}]]}`)
	if _, _, err := call.Pool(); err != nil {
		t.Errorf("1.1.0: %v", err)
	}
	call.Version = "0.2.0"
	if _, _, err := call.Pool(); err == nil || !strings.Contains(err.Error(), "0.2.0") {
		t.Errorf("0.2.0: error %v, want one that names the version", err)
	}
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
	f.Fuzz(func(t *testing.T, stdin string) {
		call, err := decode("CHECK", func(k string) string { return env("CHECK")[k] }, strings.NewReader(stdin))
		if err != nil {
			return
		}
		_, _, _ = call.Pool()
		_, _ = call.Expectation()
		_, _ = call.ExpectedAddresses()
		_, _ = call.ValidAttachments()
		if _, err := call.LoosePool(); err != nil {
			t.Errorf("LoosePool: %v", err)
		}
	})
}

func FuzzArgs(f *testing.F) {
	f.Add("A=B;C=D")
	f.Add("IgnoreUnknown=1;K8S_POD_NAME=x")
	f.Fuzz(func(_ *testing.T, s string) {
		args, err := parseArgs(s)
		if err == nil {
			(&Call{Args: args}).Workload()
		}
	})
}

func TestAutoSubnets(t *testing.T) {
	call := ipamCall(t, `"ipam":{"dataDir":"DIR","ranges":[[{"subnet":"auto/24"}],[{"subnet":"fd01::/64"}]]}`)
	l := call.ranges(call.Conf.Object("ipam"))
	if want, ok := l.wants[0]; len(l.sets) != 2 || !ok || want.Bits != 24 || want.IPv6 || len(l.wants) != 1 {
		t.Errorf("%+v", l)
	}
	if _, _, err := call.Pool(); err != nil {
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
		call := ipamCall(t, `"ipam":{"dataDir":"DIR","ranges":`+keys+`}`)
		if _, _, err := call.Pool(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %s", keys, err, says)
		}
	}
}
