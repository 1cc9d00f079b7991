package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Plugin is what a plugin does for each verb. The result of ADD is converted to
// the version the configuration asks for.
type Plugin struct {
	Name    string // of the binary
	Version string // "v0.1.0"

	// Complete, if there is one, lays the configuration upon others, before all else.
	Complete func(*Call) error
	// Vet, if there is one, looks at the configuration before ADD, CHECK and STATUS.
	Vet func(*Call) error

	Add    func(context.Context, *Call) (*Result, error)
	Check  func(context.Context, *Call) error
	Del    func(context.Context, *Call) error
	GC     func(context.Context, *Call) error
	Status func(context.Context, *Call) error
}

// Streams are where a plugin reads and writes; stdout is the protocol's.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Close          func() // after the last use; nil: they stay open
}

// supported are the spec versions of this suite, all there are.
var supported = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Run serves one call and returns the exit status. A failure is printed on
// stdout as the spec's error JSON (section 5, Error).
func (p Plugin) Run(getenv func(string) string, s Streams) int {
	if s.Close != nil {
		defer s.Close()
	}
	command := getenv("CNI_COMMAND")
	if command == "" {
		p.about(s.Stderr)
		return 0
	}
	call, err := p.serve(command, getenv, s)
	if err == nil {
		return 0
	}
	e := codeOf(err, command)
	out := struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{"1.1.0", e}
	if call != nil && slices.Contains(supported, call.Version) {
		out.CNIVersion = call.Version
	}
	if err := writeJSON(s.Stdout, out); err != nil {
		_, _ = fmt.Fprintln(s.Stderr, e.Msg) // the last resort
	}
	return 1
}

func (p Plugin) about(w io.Writer) {
	_, _ = fmt.Fprintf(w, "CNI %s plugin %s\nCNI protocol versions supported: %s\n", p.Name, p.Version, strings.Join(supported, ", "))
}

func (p Plugin) serve(command string, getenv func(string) string, s Streams) (*Call, error) {
	if command == "VERSION" {
		return nil, version.PluginSupports(supported...).Encode(s.Stdout)
	}
	verb, since := p.verb(command)
	if verb == nil && command != "ADD" {
		return nil, codef(types.ErrInvalidEnvironmentVariables, "CNI_COMMAND: %q: want ADD, CHECK, DEL, GC, STATUS or VERSION", command)
	}
	call, err := decode(command, getenv, s.Stdin)
	if err != nil {
		return call, err
	}
	call.Warn = func(line string) { _, _ = fmt.Fprintf(s.Stderr, "%s: network %q: %s\n", p.Name, call.Network, line) }
	if err := call.allows(since); err != nil {
		return call, err
	}
	if p.Complete != nil {
		if err := p.Complete(call); err != nil {
			return call, err
		}
	}
	err = p.do(command, verb, call, s.Stdout)
	if err != nil && call.Locate != nil {
		err = call.Locate(err)
	}
	return call, err
}

func (p Plugin) do(command string, verb func(context.Context, *Call) error, call *Call, stdout io.Writer) error {
	if p.Vet != nil && call.creates() {
		if err := p.Vet(call); err != nil {
			return err
		}
	}
	if command == "ADD" {
		return p.add(context.Background(), call, stdout)
	}
	return verb(context.Background(), call)
}

// verb returns the handler of a command and the spec version it came with.
func (p Plugin) verb(command string) (handler func(context.Context, *Call) error, since string) {
	switch command {
	case "CHECK":
		return p.Check, "0.4.0"
	case "DEL":
		return p.Del, "0.1.0"
	case "GC":
		return p.GC, "1.1.0"
	case "STATUS":
		return p.Status, "1.1.0"
	}
	return nil, "0.1.0"
}

// add prints the result; one that cannot be printed is taken back, since the
// runtime will believe that nothing was made.
func (p Plugin) add(ctx context.Context, call *Call, stdout io.Writer) error {
	result, err := p.Add(ctx, call)
	if err != nil {
		return err
	}
	if err := result.write(stdout, call.Version); err != nil {
		return errors.Join(fmt.Errorf("result as version %s: %w", call.Version, err), p.Del(ctx, call))
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
