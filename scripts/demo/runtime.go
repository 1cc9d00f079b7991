package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// caller calls plugins as a container runtime does: one process a call,
// variables and JSON in, JSON out (CNI spec 1.1.0, sections 2 and 3).
type caller struct {
	bin  string // directory of the plugins
	list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	results map[string]*types100.Result // of ADD, by container
	names   map[string]string           // by container; nil: they have none
}

// publisher is the container that has a port of the host: what is sent to
// hostPort there comes to its webPort.
const (
	publisher = "c1"
	hostPort  = 8080
	webPort   = 80
)

// newCaller reads the configuration. It makes bin the working directory, so
// that a mount over its path does not hide the plugins.
func newCaller(bin, conf string) (*caller, error) {
	c := &caller{results: map[string]*types100.Result{}}
	data, err := os.ReadFile(conf)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.list); err != nil {
		return nil, fmt.Errorf("%s: %w", conf, err)
	}
	if c.bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	return c, os.Chdir(bin)
}

// do runs a verb over the chain of plugins and returns how long they took. No
// container is named for STATUS and GC.
func (c *caller) do(verb, id string) (took time.Duration, err error) {
	plugins := slices.Clone(c.list.Plugins)
	if verb == "DEL" {
		slices.Reverse(plugins)
	}
	for _, p := range plugins {
		start := time.Now()
		out, err := c.exec(verb, id, p)
		took += time.Since(start)
		if err != nil {
			return took, err
		}
		if verb == "ADD" {
			c.results[id] = &types100.Result{}
			if err := json.Unmarshal(out, c.results[id]); err != nil {
				return took, fmt.Errorf("result of ADD: %w", err)
			}
		}
	}
	return took, nil
}

// exec calls one plugin; an error that the plugin printed is a *types.Error.
func (c *caller) exec(verb, id string, plugin map[string]any) ([]byte, error) {
	conf := map[string]any{"cniVersion": c.list.CNIVersion, "name": c.list.Name}
	for k, v := range plugin {
		conf[k] = v
	}
	if prev := c.results[id]; prev != nil {
		conf["prevResult"] = prev
	}
	if id == publisher {
		conf["runtimeConfig"] = map[string]any{"portMappings": []any{
			map[string]any{"hostPort": hostPort, "containerPort": webPort, "protocol": "tcp"},
		}}
	}
	if verb == "GC" {
		conf["cni.dev/valid-attachments"] = []any{} // no container lives
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(fmt.Sprintf("./%s", plugin["type"]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_PATH=" + c.bin}
	if id != "" {
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_NETNS="+container(id))
	}
	if name := c.names[id]; name != "" {
		cmd.Env = append(cmd.Env, "CNI_ARGS=NAME="+name)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var said types.Error
		if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Code != 0 {
			return nil, &said
		}
		return nil, fmt.Errorf("%w %s%s", err, &stdout, &stderr)
	}
	return stdout.Bytes(), nil
}
