package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/testutils"
	"github.com/google/go-cmp/cmp"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// env is the environment of a call that is right.
func env(command string) map[string]string {
	return map[string]string{
		"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
	}
}

// serve runs p and returns exit status, stdout and stderr.
func serve(p Plugin, env map[string]string, stdin string) (int, string, string) {
	var stdout, stderr bytes.Buffer
	status := p.Run(func(k string) string { return env[k] }, Streams{Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	return status, stdout.String(), stderr.String()
}

func TestAbout(t *testing.T) {
	status, stdout, stderr := serve(Plugin{Name: "test-ln", Version: "v1.2.3"}, nil, "")
	want := "CNI test-ln plugin v1.2.3\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
	if status != 0 || stdout != "" || stderr != want {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// CRI-O and podman ask with dummy values and no container ID.
func TestVersion(t *testing.T) {
	for _, stdin := range []string{`{"cniVersion":"1.1.0"}`, "", "not json"} {
		status, stdout, _ := serve(Plugin{}, map[string]string{"CNI_COMMAND": "VERSION", "CNI_IFNAME": "dummy", "CNI_NETNS": "dummy", "CNI_PATH": "dummy"}, stdin)
		var got struct {
			CNIVersion        string
			SupportedVersions []string
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != 0 {
			t.Fatalf("status %d, %v: %s", status, err, stdout)
		}
		if got.CNIVersion != "1.1.0" || len(got.SupportedVersions) != 7 {
			t.Errorf("%+v", got)
		}
	}
}

// refusal is what a call answered.
type refusal struct {
	CNIVersion string
	Code       uint
	Msg        string
}

func TestRefusals(t *testing.T) {
	ok := `{"cniVersion":"1.1.0","name":"net1"}`
	with := func(command, key, value string) map[string]string {
		e := env(command)
		e[key] = value
		return e
	}
	tests := []struct {
		name  string
		env   map[string]string
		stdin string
		code  uint
		says  string
	}{
		{"unknown command", env("FROB"), ok, 4, `"FROB"`},
		{"no container ID", with("ADD", "CNI_CONTAINERID", ""), ok, 4, "CNI_CONTAINERID"},
		{"path in container ID", with("DEL", "CNI_CONTAINERID", "../c1"), ok, 4, `"../c1"`},
		{"no ifname", with("ADD", "CNI_IFNAME", ""), ok, 4, "CNI_IFNAME"},
		{"long ifname", with("ADD", "CNI_IFNAME", "sixteen-bytes-xx"), ok, 4, "sixteen-bytes-xx"},
		{"no netns", with("ADD", "CNI_NETNS", ""), ok, 4, "CNI_NETNS"},
		{"bad args", with("ADD", "CNI_ARGS", "A=B=C"), ok, 4, `"A=B=C"`},
		{"unknown args", with("ADD", "CNI_ARGS", "COLOUR=red"), ok, 4, "COLOUR"},
		{"not JSON", env("ADD"), `{"cniVersion"`, 6, "not valid JSON"},
		{"empty", env("ADD"), "", 6, "not valid JSON"},
		{"a list", env("ADD"), "[]", 7, "want an object"},
		{"name of wrong type", env("ADD"), `{"cniVersion":"1.1.0","name":5}`, 7, "name: 5: want a string"},
		{"no name", env("ADD"), `{"cniVersion":"1.1.0"}`, 7, "name: missing"},
		{"path in name", env("ADD"), `{"cniVersion":"1.1.0","name":"../x"}`, 7, `"../x"`},
		{"unknown version", env("ADD"), `{"cniVersion":"9.9.9","name":"net1"}`, 1, `"9.9.9"`},
		{"CHECK before 0.4.0", env("CHECK"), `{"cniVersion":"0.3.1","name":"net1"}`, 1, "0.4.0"},
		{"GC before 1.1.0", env("GC"), `{"cniVersion":"1.0.0","name":"net1"}`, 1, "1.1.0"},
		{"STATUS before 1.1.0", env("STATUS"), `{"cniVersion":"1.0.0","name":"net1"}`, 1, "1.1.0"},
		{"huge", env("ADD"), ok + strings.Repeat(" ", maxStdin), 6, "larger than"},
	}
	reached := errors.New("the plugin was reached")
	verb := func(context.Context, *Call) error { return reached }
	p := Plugin{Check: verb, Del: verb, GC: verb, Status: verb, Add: func(context.Context, *Call) (*Result, error) { return nil, reached }}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, stdout, stderr := serve(p, tt.env, tt.stdin)
			var got refusal
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatalf("%v: %s", err, stdout)
			}
			if status != 1 || stderr != "" || got.Code != tt.code || !strings.Contains(got.Msg, tt.says) || got.CNIVersion == "" {
				t.Errorf("status %d, stderr %q, answer %+v; want code %d and %q", status, stderr, got, tt.code, tt.says)
			}
		})
	}
}

// A result that cannot be given is taken back.
func TestUnprintableResultIsTakenBack(t *testing.T) {
	deleted := false
	p := Plugin{
		Add: func(context.Context, *Call) (*Result, error) {
			return &Result{Result: &types100.Result{CNIVersion: "1.1.0"}}, nil // no address: nothing in 0.2.0 can say so
		},
		Del: func(context.Context, *Call) error { deleted = true; return nil },
	}
	status, stdout, _ := serve(p, env("ADD"), `{"cniVersion":"0.2.0","name":"net1"}`)
	if status == 0 || !deleted {
		t.Errorf("status %d, deleted %v, stdout %s", status, deleted, stdout)
	}
}

func TestStatusCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want uint
	}{
		{errors.New("anything"), 50},
		{model.ErrBadNetns, 50},
		{codef(51, "limited"), 51},
		{codef(7, "bad conf"), 7},
		{&model.ConfigError{Key: "mtu", Value: "5"}, 7},
		{codef(5, "disk"), 50},
	} {
		if got := codeOf(tt.err, "STATUS").Code; got != tt.want {
			t.Errorf("%v: code %d, want %d", tt.err, got, tt.want)
		}
	}
}

// CHECK says 103 for a difference alone; what kept it from looking has a code of
// its own, whatever else was found.
func TestCheckCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want uint
	}{
		{fmt.Errorf("%w: %w", model.ErrDifferent, netlink.ErrNotFound), 103},
		{fmt.Errorf("%w: %w", model.ErrDifferent, errors.Join(firewall.ErrMissing, ipamstore.ErrLocked)), 103},
		{ipamstore.ErrNotFound, 103},
		{ipamstore.ErrLocked, 11},
		{fmt.Errorf("list routes: %w", syscall.EMFILE), 11},
		{fmt.Errorf("list routes: %w", syscall.ENOBUFS), 11},
		{fmt.Errorf("receive from rtnetlink: %w", syscall.EAGAIN), 11},
		{context.DeadlineExceeded, 11},
		{&os.PathError{Op: "open", Path: "/x", Err: syscall.EIO}, 5},
		{errors.New("anything"), 999},
	} {
		if got := codeOf(tt.err, "CHECK").Code; got != tt.want {
			t.Errorf("%v: code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestArgs(t *testing.T) {
	got, err := parseArgs("K8S_POD_NAME=web;IgnoreUnknown=1;COLOUR=red;K8S_POD_NAMESPACE=prod")
	if err != nil {
		t.Fatal(err)
	}
	want := Args{"K8S_POD_NAME": "web", "IgnoreUnknown": "1", "COLOUR": "red", "K8S_POD_NAMESPACE": "prod"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWorkload(t *testing.T) {
	for args, want := range map[string]string{
		"": "",
		"K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web;IgnoreUnknown=1": "prod/web",
		"K8S_POD_NAME=web":                                       "/web",
		"K8S_POD_NAMESPACE=prod":                                 "",
		"IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=db":           "db",
		"IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=0123456789ab": "",
		"IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=db;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=db-0": "prod/db-0",
	} {
		parsed, err := parseArgs(args)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&Call{ContainerID: "0123456789abcdef", Args: parsed}).Workload(); got != want {
			t.Errorf("%q: workload %q, want %q", args, got, want)
		}
	}
}

func TestValidAttachments(t *testing.T) {
	living := life.Holder{ID: model.ID{Network: "net1", ContainerID: "c1", IfName: "eth0"}}
	other := life.Holder{ID: model.ID{Network: "net1", ContainerID: "c2", IfName: "eth0"}}
	isDead := func(h life.Holder) bool { return h.ID == other.ID }
	tests := []struct {
		name, keys              string
		keepsLiving, keepsOther bool
		empty                   bool
	}{
		{"no list: the dead go", ``, true, false, false},
		{"null: all go", `,"cni.dev/valid-attachments":null,"cni.dev/attachments":null`, false, false, true},
		{"empty: all go", `,"cni.dev/valid-attachments":[]`, false, false, true},
		{"a list: those on it stay", `,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`, true, false, false},
		{"the older key", `,"cni.dev/attachments":[{"containerID":"c2","ifname":"eth0"}]`, false, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := jsonr.Parse([]byte(`{"name":"net1"` + tt.keys + `}`))
			if err != nil {
				t.Fatal(err)
			}
			call := &Call{Network: "net1", Conf: conf}
			valid, err := call.ValidAttachments()
			if err != nil {
				t.Fatal(err)
			}
			keep := valid.Keep(isDead, "")
			foreign, gone := living, other
			foreign.Runtime, gone.Runtime = "/bin/theirs", "/bin/theirs"
			if ours := valid.Keep(isDead, "/bin/ours"); !ours(foreign) || ours(gone) {
				t.Errorf("of another runtime: keeps living %v, dead %v", ours(foreign), ours(gone))
			}
			if keep(living) != tt.keepsLiving || keep(other) != tt.keepsOther || valid.Empty() != tt.empty {
				t.Errorf("keeps living %v, other %v, empty %v", keep(living), keep(other), valid.Empty())
			}
		})
	}
}

// The reference plugins serve the same versions.
func TestVersions(t *testing.T) {
	if diff := cmp.Diff(testutils.AllSpecVersions[:], supported); diff != "" {
		t.Errorf("(-reference +ours):\n%s", diff)
	}
}
