// Package cniplugin is the driver of every network whose driver is the name of a
// CNI plugin: it runs the plugin's binary, as CNI spec 1.1.0 says.
package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/model"
)

// DefaultPath is where plugins are looked for unless told otherwise.
const DefaultPath = "/opt/cni/bin"

// Capability of every plugin: how far its networks reach only its user knows.
func Capability() driver.Capability { return driver.Capability{} }

// Driver runs one plugin.
type Driver struct {
	name   string
	binary string
	path   []string
}

var _ driver.Driver = (*Driver)(nil)

// Find returns the driver of the plugin of that name in the directories of path; nil
// if none has it.
func Find(path []string, name string) *Driver {
	binary := find(path, name)
	if binary == "" {
		return nil
	}
	return &Driver{name: name, binary: binary, path: path}
}

func find(path []string, name string) string {
	if !model.ValidName(name) {
		return ""
	}
	for _, dir := range path {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && isProgram(info.Mode()) {
			return file
		}
	}
	return ""
}

func isProgram(m os.FileMode) bool { return m.IsRegular() && m&0o111 != 0 }

// List returns the names of all programs in the directories of path, each once.
func List(path []string) []string {
	found := map[string]bool{}
	for _, dir := range path {
		entries, _ := os.ReadDir(dir) //nolint:forbidigo // plugins do not link this package
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && isProgram(info.Mode()) && model.ValidName(e.Name()) {
				found[e.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// ours are the keys of a configuration that options cannot have.
var ours = []string{"name", "type", "ipam", "prevResult", "runtimeConfig", "cniVersion"}

// Define makes the plugin's configuration of the options. It asks the plugin which
// versions of CNI it speaks, and so learns whether the program is a plugin.
func (d *Driver) Define(ctx context.Context, n driver.Network) (driver.Network, error) {
	for _, key := range ours {
		if v, has := n.Options[key]; has {
			return n, model.BadConfig(key, fmt.Sprint(v), "is not an option of the driver: see the options of the network")
		}
	}
	newest, err := d.version(ctx)
	if err != nil {
		return n, err
	}
	conf := maps.Clone(n.Options)
	if conf == nil {
		conf = map[string]any{}
	}
	conf["name"], conf["type"], conf["cniVersion"] = n.Name, d.name, newest
	if n.IPAM != nil {
		conf["ipam"] = n.IPAM
	}
	n.Conf, err = json.Marshal(conf)
	if err != nil {
		return n, model.BadConfig("options", fmt.Sprint(n.Options), "want values that JSON has: "+err.Error())
	}
	return n, nil
}

// Attach runs ADD. The plugin may ignore what was asked; then it is an error.
func (d *Driver) Attach(ctx context.Context, a driver.Attachment) (driver.Result, error) {
	out, err := d.run(ctx, call{verb: "ADD", conf: a.Conf, attachment: a})
	if err != nil {
		return driver.Result{}, err
	}
	got, err := decode(a, out)
	if err != nil {
		return got, fmt.Errorf("plugin %s ADD: result: %w", d.name, err)
	}
	return got, d.granted(a.Asked, got)
}

// Verify runs CHECK, if the plugin's version of CNI has it.
func (d *Driver) Verify(ctx context.Context, a driver.Attachment) error {
	conf, err := read(a.Conf)
	if err != nil || !conf.since("0.4.0") {
		return err
	}
	whole, err := conf.withResult(a)
	if err == nil {
		_, err = d.run(ctx, call{verb: "CHECK", conf: whole, attachment: a})
	}
	return err
}

// Detach runs DEL, with the configuration that ADD had.
func (d *Driver) Detach(ctx context.Context, a driver.Attachment) error {
	whole := a.Conf
	if conf, err := read(a.Conf); err == nil { // else the plugin says what is wrong with it
		if whole, err = conf.withResult(a); err != nil {
			return err
		}
	}
	_, err := d.run(ctx, call{verb: "DEL", conf: whole, attachment: a})
	return err
}

// Collect runs GC, if the plugin's version of CNI has it, and GC of its IPAM plugin:
// most plugins, the reference ones among them, do not hand it on.
func (d *Driver) Collect(ctx context.Context, n driver.Network, keep []driver.Attachment, lock *os.File) error {
	conf, err := read(n.Conf)
	if err != nil || !conf.since("1.1.0") {
		return err
	}
	valid := []types.GCAttachment{}
	for _, a := range keep {
		valid = append(valid, types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName})
	}
	whole, err := conf.with("cni.dev/valid-attachments", valid)
	if err != nil {
		return err
	}
	gc := call{verb: "GC", conf: whole, attachment: driver.Attachment{Lock: lock}}
	_, err = d.run(ctx, gc)
	return errors.Join(err, d.collectAddresses(ctx, conf, gc))
}

func (d *Driver) collectAddresses(ctx context.Context, conf conf, gc call) error {
	var asked types.IPAM
	if err := conf.decode("ipam", &asked); err != nil || asked.Type == "" {
		return err
	}
	ipam := Find(d.path, asked.Type)
	if ipam == nil {
		return fmt.Errorf("IPAM %w %q: no such plugin in %s", model.ErrUnknownDriver, asked.Type, strings.Join(d.path, ":"))
	}
	newest, err := ipam.version(ctx)
	if has, versionErr := version.GreaterThanOrEqualTo(newest, "1.1.0"); err != nil || versionErr != nil || !has {
		return errors.Join(err, versionErr)
	}
	_, err = ipam.run(ctx, gc)
	return err
}

// Status runs STATUS, if the plugin's version of CNI has it.
func (d *Driver) Status(ctx context.Context, n driver.Network) error {
	conf, err := read(n.Conf)
	if err != nil || !conf.since("1.1.0") {
		return err
	}
	_, err = d.run(ctx, call{verb: "STATUS", conf: n.Conf})
	return err
}

// granted says what the plugin did not do of what was asked.
func (d *Driver) granted(asked driver.Asked, got driver.Result) error {
	var errs []error
	if mac, ok := asked["mac"].(string); ok && !strings.EqualFold(mac, got.MAC) {
		errs = append(errs, model.BadConfig("mac", mac, "the plugin "+d.name+" gave "+got.MAC+": it cannot be told which"))
	}
	for _, ip := range list(asked["ips"]) {
		if !slices.ContainsFunc(got.Addresses, func(a model.Address) bool { return a.Prefix.Addr().String() == ip }) {
			errs = append(errs, model.BadConfig("ips", ip, fmt.Sprintf("the plugin %s gave %v: it cannot be told which", d.name, got.Addrs())))
		}
	}
	return errors.Join(errs...)
}

// list is a list of strings as Go or JSON made it.
func list(v any) (all []string) {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		for _, s := range v {
			all = append(all, fmt.Sprint(s))
		}
	}
	return all
}
