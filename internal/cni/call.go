package cni

import (
	"errors"
	"io"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// maxStdin bounds a configuration, in bytes: prevResult and attachment lists
// included it stays far below.
const maxStdin = 8 << 20

// manyBytes is a configuration of which so much is made that the garbage collector would
// start, for a process that ends before it pays: with 1000 hosts a tenth of an ADD.
const manyBytes = 32 << 10

// Call is one call of a plugin, decoded and checked.
type Call struct {
	Command     string
	ContainerID string // empty for GC and STATUS
	Netns       string // path; empty where the command does not need one
	IfName      string // empty for GC and STATUS
	Path        []string
	Stdin       []byte        // the configuration as it came
	Conf        *jsonr.Object // and read
	Version     string        // of the configuration: "0.1.0" if it says none
	Network     string
	Args        Args
	// Layers is what the network's record keeps of what the configuration was laid upon; nil:
	// nothing. Locate, if not nil, names the file of a value in an error about it.
	Layers []byte
	Locate func(error) error
	// Warn prints a line for the operator on stderr.
	Warn func(line string)
	// OwnNetns allows CNI_NETNS to be the plugin's own namespace
	// (CNI_NETNS_OVERRIDE).
	OwnNetns bool
}

// decode reads the environment and the configuration. On failure the call
// returned holds what is known, for the error's cniVersion; it may be nil.
func decode(command string, getenv func(string) string, stdin io.Reader) (*Call, error) {
	call := &Call{
		Command:     command,
		ContainerID: getenv("CNI_CONTAINERID"),
		Netns:       getenv("CNI_NETNS"),
		IfName:      getenv("CNI_IFNAME"),
		Path:        filepath.SplitList(getenv("CNI_PATH")),
	}
	override := getenv("CNI_NETNS_OVERRIDE")
	call.OwnNetns = override == "1" || strings.EqualFold(override, "true")
	if err := call.decodeStdin(stdin); err != nil {
		return call, err
	}
	if err := call.checkEnv(); err != nil {
		return call, err
	}
	args, err := parseArgs(getenv("CNI_ARGS"))
	if err != nil && call.creates() {
		return call, err
	}
	call.Args = args
	return call, nil
}

func (c *Call) decodeStdin(stdin io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(stdin, maxStdin+1))
	if err != nil {
		return codef(types.ErrIOFailure, "read the configuration from stdin: %v", err)
	}
	if len(data) > maxStdin {
		return codef(types.ErrDecodingFailure, "the configuration on stdin is larger than %d bytes", maxStdin)
	}
	c.Stdin = data
	if len(data) > manyBytes {
		debug.SetGCPercent(800)
	}
	c.Conf, err = jsonr.Parse(data)
	if bad := new(jsonr.SyntaxError); errors.As(err, &bad) {
		return codef(types.ErrDecodingFailure, "the configuration on stdin is %v", bad)
	}
	if err != nil {
		return err
	}
	c.Conf.String("cniVersion", &c.Version)
	c.Conf.String("name", &c.Network)
	if err := c.Conf.Err(); err != nil {
		return err
	}
	if c.Version == "" {
		c.Version = "0.1.0" // as libcni's decoder has it
	}
	if !slices.Contains(supported, c.Version) {
		return codef(types.ErrIncompatibleCNIVersion, "cniVersion: %.80q: this plugin speaks %s", c.Version, strings.Join(supported, ", "))
	}
	if c.Network == "" {
		return codef(types.ErrInvalidNetworkConfig, "name: missing: the configuration needs the network's name")
	}
	if !model.ValidName(c.Network) {
		return codef(types.ErrInvalidNetworkConfig, "name: %.80q: want a letter or digit, then letters, digits, '_', '.', '-', 200 bytes at most", c.Network)
	}
	return nil
}

// checkEnv holds the environment against the spec's table (section 2,
// Parameters).
func (c *Call) checkEnv() error {
	if c.Command == "GC" || c.Command == "STATUS" {
		return nil
	}
	if c.ContainerID == "" {
		return codef(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID: missing")
	}
	if !model.ValidName(c.ContainerID) {
		return codef(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID: %q: want a letter or digit, then letters, digits, '_', '.', '-', 200 bytes at most", c.ContainerID)
	}
	if c.IfName == "" {
		return codef(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME: missing")
	}
	if !model.ValidIfName(c.IfName) && c.creates() { // of others there is nothing to clean up
		return codef(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME: %q: want 1 to 15 bytes without '/', ':', '%%' and blanks, not '.' or '..'", c.IfName)
	}
	if c.Netns == "" && c.creates() {
		return codef(types.ErrInvalidEnvironmentVariables, "CNI_NETNS: missing: want the path of the container's network namespace")
	}
	return nil
}

// creates says that bad input must be refused: what only cleans up takes what
// it can get.
func (c *Call) creates() bool { return c.Command != "DEL" && c.Command != "GC" }

// allows says if the configuration's version is too old for the command.
func (c *Call) allows(since string) error {
	ok, err := version.GreaterThanOrEqualTo(c.Version, since)
	if err == nil && !ok {
		err = codef(types.ErrIncompatibleCNIVersion, "cniVersion: %q: %s came with %s", c.Version, c.Command, since)
	}
	return err
}

// AllowAddresses refuses what a result of the configuration's version cannot hold: before
// 0.3.0 it has one address of each family at most, and one at least.
func (c *Call) AllowAddresses(v4, v6 int) error {
	if ok, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); ok || err != nil {
		return err
	}
	switch {
	case v4 > 1 || v6 > 1:
		return codef(types.ErrInvalidNetworkConfig, "cniVersion: %q: a version before 0.3.0 has one address per family; use 0.3.0 or later, or one range set per family", c.Version)
	case v4+v6 == 0:
		return codef(types.ErrInvalidNetworkConfig, "cniVersion: %q: a result before 0.3.0 must have an address: add an ipam section, or use 0.3.0 or later", c.Version)
	}
	return nil
}
