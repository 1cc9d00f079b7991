package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// Delegate is an IPAM plugin that is not ours, run as a process with the
// configuration as it came (spec 1.1.0, section 4, Delegated plugins).
type Delegate struct {
	call *Call
	kind string
}

var _ address.IPAM = (*Delegate)(nil)

// NewDelegate returns the IPAM plugin kind for a call.
func NewDelegate(call *Call, kind string) *Delegate {
	return &Delegate{call: call, kind: kind}
}

// Type returns the name of the plugin's binary.
func (d *Delegate) Type() string { return d.kind }

// Apply runs ADD. On failure the caller runs Remove, as the spec asks.
func (d *Delegate) Apply(ctx context.Context, claim address.Claim) (model.Addressing, error) {
	out, err := d.run(ctx, "ADD", claim.ID)
	if err != nil {
		return model.Addressing{}, err
	}
	r, err := d.call.decodeResult(out)
	if err != nil {
		return model.Addressing{}, codef(types.ErrDecodingFailure, "ipam plugin %s ADD: result: %v", d.kind, err)
	}
	got := addressing(r, -1)
	for i, a := range got.Addresses {
		if !a.Prefix.IsValid() {
			return model.Addressing{}, codef(types.ErrDecodingFailure, "ipam plugin %s ADD: result: ips[%d].address: missing", d.kind, i)
		}
	}
	return got, nil
}

// Verify runs CHECK. Its error keeps the plugin's code and is no
// model.ErrDifferent: the reference plugins say 999 for a lease that is gone
// and for a daemon that does not answer.
func (d *Delegate) Verify(ctx context.Context, id model.ID, _ []netip.Addr) error {
	_, err := d.run(ctx, "CHECK", id)
	return err
}

// Remove runs DEL.
func (d *Delegate) Remove(ctx context.Context, id model.ID) error {
	_, err := d.run(ctx, "DEL", id)
	return err
}

// Collect runs GC; the list of those that stay is in the configuration.
func (d *Delegate) Collect(ctx context.Context, _ func(life.Holder) bool) error {
	if d.call.Command != "GC" {
		return nil
	}
	_, err := d.run(ctx, "GC", model.ID{})
	var coded *types.Error
	if errors.As(err, &coded) && coded.Code == types.ErrInvalidEnvironmentVariables {
		return nil // a plugin of before 1.1.0 does not know the command
	}
	return err
}

// Status runs STATUS.
func (d *Delegate) Status(ctx context.Context) error {
	_, err := d.run(ctx, "STATUS", model.ID{})
	return err
}

// run runs the plugin and returns what it printed. (The invoke package of the
// CNI module does the same, but since 1.3.1 it links net/http.)
func (d *Delegate) run(ctx context.Context, command string, id model.ID) ([]byte, error) {
	path, err := d.find()
	if err != nil {
		return nil, err
	}
	if err := plain.StartPoller(); err != nil {
		return nil, fmt.Errorf("ipam plugin %s %s: %w", d.kind, command, err)
	}
	stdout, stderr := bounded{most: maxResult, strict: true}, bounded{most: maxComplaint}
	cmd := exec.CommandContext(ctx, path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(d.call.Stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command,
		"CNI_CONTAINERID="+id.ContainerID, "CNI_IFNAME="+id.IfName, "CNI_NETNS="+d.call.Netns)
	// A plugin that outlived this process could take an address after the DEL that
	// follows. The signal comes when this thread ends, which has to stay until then.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if stdout.more {
		return nil, codef(types.ErrDecodingFailure, "ipam plugin %s %s: result: more than %d bytes", d.kind, command, maxResult)
	}
	if err != nil {
		return nil, d.failed(command, err, stdout.kept, string(stderr.kept))
	}
	return stdout.kept, nil
}

// The bytes kept of a delegate's output: of its result, and of its stderr.
const (
	maxResult    = maxStdin
	maxComplaint = 4 << 10
)

// bounded keeps the first bytes of what is written to it. If strict it refuses
// the rest, so that a program that writes without end is ended; otherwise it
// drops that.
type bounded struct {
	kept   []byte
	most   int
	more   bool // than is kept
	strict bool
}

var errTooMuch error = &sentinel.Error{Text: "too much output"}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.most-len(b.kept))
	b.more = b.more || keep < len(p)
	b.kept = append(b.kept, p[:keep]...)
	if b.more && b.strict {
		return keep, errTooMuch
	}
	return len(p), nil
}

// failed says which plugin it was and keeps its code.
func (d *Delegate) failed(command string, err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) != nil || said.Msg == "" {
		said = types.Error{Code: types.ErrInternal, Msg: err.Error(), Details: strings.TrimSpace(stderr)}
	}
	return types.NewError(said.Code, "ipam plugin "+d.kind+" "+command+": "+said.Msg, said.Details)
}

func (d *Delegate) find() (string, error) {
	if strings.ContainsRune(d.kind, '/') {
		return "", badKey("ipam.type", fmt.Sprintf("%q", d.kind), "want the name of a plugin without '/'")
	}
	for _, dir := range d.call.Path {
		path := filepath.Join(dir, d.kind)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", badKey("ipam.type", fmt.Sprintf("%q", d.kind), fmt.Sprintf("no such plugin in CNI_PATH %q", strings.Join(d.call.Path, ":")))
}
