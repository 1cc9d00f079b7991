package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// call is one run of a plugin.
type call struct {
	verb       string
	conf       []byte
	attachment driver.Attachment
}

// afterwards is how long a plugin that was ended may keep its output open.
const afterwards = 5 * time.Second

// run runs the plugin and returns what it printed. The package invoke of the CNI
// module does the same, but has no way to hand on a file, and links OpenTelemetry.
func (d *Driver) run(ctx context.Context, c call) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, d.binary)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.conf), &stdout, &stderr
	a := c.attachment
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+c.verb, "CNI_CONTAINERID="+a.ContainerID, "CNI_IFNAME="+a.IfName,
		"CNI_NETNS="+a.Netns, "CNI_PATH="+strings.Join(d.path, ":"), "CNI_ARGS=")
	if a.Lock != nil {
		cmd.ExtraFiles = []*os.File{a.Lock}
	}
	// A plugin that is ended is ended with the plugins that it runs itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.Lock == nil { // nothing keeps others from its attachment once this thread is gone
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = afterwards
	err := cmd.Start()
	if err == nil {
		endWith(cmd.Process.Pid)
		err = cmd.Wait()
	}
	if err != nil {
		return nil, d.failed(c.verb, err, stdout.Bytes(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// endWith waits until a plugin has ended, and ends the plugins that it ran if it was
// killed: an IPAM that goes on could take an address after the DEL that follows. The
// plugin is not reaped yet, so that its number is no other process's.
func endWith(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && (info.Code == cldKilled || info.Code == cldDumped) {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
		return
	}
}

// Codes of SIGCHLD (asm-generic/siginfo.h).
const (
	cldKilled = 2
	cldDumped = 3
)

// failed says which plugin it was and keeps its code.
func (d *Driver) failed(verb string, err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) != nil || said.Msg == "" {
		said = types.Error{Code: types.ErrInternal, Msg: err.Error(), Details: strings.TrimSpace(stderr)}
	}
	return fmt.Errorf("plugin %s %s: %w", d.name, verb, &said)
}

// version returns the newest version of CNI that the plugin and this driver speak.
func (d *Driver) version(ctx context.Context) (string, error) {
	conf, _ := json.Marshal(map[string]string{"cniVersion": version.Current()}) // of strings: never fails
	out, err := d.run(ctx, call{verb: "VERSION", conf: conf, attachment: driver.Attachment{ContainerID: "none", IfName: "none", Netns: "none"}})
	if err != nil {
		return "", fmt.Errorf("%s is no CNI plugin: %w", d.binary, err)
	}
	info, err := (&version.PluginDecoder{}).Decode(out)
	if err != nil {
		return "", fmt.Errorf("%s is no CNI plugin: VERSION: %w", d.binary, err)
	}
	known := version.All.SupportedVersions()
	for _, v := range slices.Backward(known) { // they are in ascending order
		if slices.Contains(info.SupportedVersions(), v) {
			return v, nil
		}
	}
	return "", fmt.Errorf("plugin %s speaks CNI %v, and libnet %v", d.name, info.SupportedVersions(), known)
}

// decode reads the result of ADD.
func decode(a driver.Attachment, out []byte) (driver.Result, error) {
	conf, err := read(a.Conf)
	if err != nil {
		return driver.Result{}, err
	}
	any, err := create.Create(conf.version(), out)
	if err != nil {
		return driver.Result{}, err
	}
	r, err := types100.NewResultFromResult(any)
	if err != nil {
		return driver.Result{}, err
	}
	got := driver.Result{Raw: bytes.TrimSpace(out)}
	inside := map[int]bool{}
	for i, link := range r.Interfaces {
		if link.Sandbox != "" && link.Name == a.IfName {
			got.MAC, got.MTU, inside[i] = link.Mac, link.Mtu, true
		}
	}
	for _, ip := range r.IPs {
		if ip.Interface != nil && !inside[*ip.Interface] && len(inside) > 0 {
			continue // of another interface, as the bridge's
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !ok {
			return got, fmt.Errorf("address %v", ip.Address)
		}
		gw, _ := netip.AddrFromSlice(ip.Gateway)
		got.Addresses = append(got.Addresses, model.Address{Prefix: netip.PrefixFrom(addr.Unmap(), bits), Gateway: gw.Unmap()})
	}
	for _, r := range r.Routes {
		dst, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if !ok {
			return got, fmt.Errorf("route to %v", r.Dst)
		}
		gw, _ := netip.AddrFromSlice(r.GW)
		got.Routes = append(got.Routes, model.Route{
			Dst: netip.PrefixFrom(dst.Unmap(), bits), Gateway: gw.Unmap(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	got.DNS = model.DNS(r.DNS)
	return got, nil
}
