package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/libnet-cni/libnet/internal/model"
)

// reads is a plugin that does nothing but read what it is sent, in all ways
// there are.
func reads() Plugin {
	read := func(_ context.Context, c *Call) error {
		_, _ = c.PrevAddresses()
		_, _ = c.ValidAttachments()
		_, _ = c.Expectation()
		_, _ = c.ExpectedAddresses()
		_ = c.Workload()
		return c.AllowAddresses(len(c.IfName), 0)
	}
	return Plugin{
		Name: "reads", Version: "v0", Check: read, Del: read, GC: read, Status: read,
		Add: func(ctx context.Context, c *Call) (*Result, error) {
			if err := read(ctx, c); err != nil {
				return nil, err
			}
			r, err := c.PrevResult()
			if err == nil {
				r.NamePorts([]model.PortMapping{{}}, []model.PortMapping{{HostPort: 1}})
			}
			return r, err
		},
	}
}

// Whatever a runtime sends, the answer is one the spec knows: with status 0
// nothing or JSON, with 1 an error with a code and a message.
func FuzzRun(f *testing.F) {
	f.Add("ADD", "c1", "/run/netns/x", "eth0", "IgnoreUnknown=1;K8S_POD_NAME=p", `{"cniVersion":"1.1.0","name":"n","ipam":{"type":"x"},"runtimeConfig":{"portMappings":[{"containerPort":80}]},"prevResult":{"ips":[{"address":"10.1.0.2/24"}]}}`)
	f.Add("ADD", "c1", "n", "eth0", "", `{"cniVersion":"0.2.0","name":"n","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"n"}],"ips":[{"interface":0,"address":"fd00::2/64"}]}}`)
	f.Add("CHECK", "c", "n", "%d", "A=B", `{"cniVersion":"0.3.1","name":"n"}`)
	f.Add("GC", "", "", "", "", `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"a"}]}`)
	f.Add("", "", "", "", "", ``)
	f.Fuzz(func(t *testing.T, command, cid, netns, ifName, args, stdin string) {
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": cid, "CNI_NETNS": netns, "CNI_IFNAME": ifName, "CNI_ARGS": args}
		var stdout, stderr bytes.Buffer
		status := reads().Run(func(k string) string { return env[k] }, Streams{Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
		if out := stdout.Bytes(); len(out) > 0 && !json.Valid(out) {
			t.Fatalf("not JSON: %q", out)
		}
		var said types.Error
		if status == 0 {
			return
		}
		if err := json.Unmarshal(stdout.Bytes(), &said); err != nil || status != 1 || said.Code == 0 || said.Msg == "" {
			t.Fatalf("status %d: %q, %v", status, &stdout, err)
		}
	})
}

// The answer of another IPAM plugin becomes an error, or the same addresses
// again once it was written and read.
func FuzzDelegateResult(f *testing.F) {
	f.Add("1.1.0", []byte(`{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0","mtu":1400}],"dns":{"search":["a"]}}`))
	f.Add("0.2.0", []byte(`{"ip4":{"ip":"10.1.0.2/24","routes":[{"dst":"10.0.0.0/8","gw":"10.1.0.1"}]},"ip6":{"ip":"fd00::2/64"}}`))
	f.Add("0.4.0", []byte(`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.1.0.2/24"}],"interfaces":[null]}`))
	f.Fuzz(func(t *testing.T, version string, data []byte) {
		c := &Call{Version: version}
		r, err := c.decodeResult(data)
		if err != nil {
			return
		}
		first := addressing(r, -1)
		for _, a := range first.Addresses {
			if !a.Prefix.IsValid() {
				return // which Apply refuses
			}
		}
		for _, route := range first.Routes {
			if !route.Dst.IsValid() {
				return
			}
		}
		var out bytes.Buffer
		if err := AddressResult(first).write(&out, "1.1.0"); err != nil {
			t.Fatal(err)
		}
		r, err = (&Call{Version: "1.1.0"}).decodeResult(out.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", &out, err)
		}
		again := addressing(r, -1)
		if len(again.Addresses) != len(first.Addresses) || len(again.Routes) != len(first.Routes) {
			t.Errorf("%+v became %+v", first, again)
		}
	})
}
