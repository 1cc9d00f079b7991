// Command recorder stands in the place of a CNI plugin: it runs the plugin of
// its own name in behind and appends what was asked and answered to log.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Where the test puts the plugins, and reads the calls.
const (
	behind = "/opt/cni/behind"
	log    = "/run/e2e/calls"
)

// call is one line of the log.
type call struct {
	Plugin      string          `json:"plugin"`
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	IfName      string          `json:"ifName"`
	Netns       string          `json:"netns"`
	Stdin       json.RawMessage `json:"stdin"`
	Stdout      string          `json:"stdout"`
	Stderr      string          `json:"stderr"`
	Code        int             `json:"code"` // the exit status
	Took        time.Duration   `json:"took"` // nanoseconds
}

func main() {
	code, err := run(filepath.Base(os.Args[0]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		code = 1
	}
	os.Exit(code)
}

func run(plugin string) (int, error) {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 0, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(behind, plugin))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	start := time.Now()
	err = cmd.Run()
	took := time.Since(start)
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	code := cmd.ProcessState.ExitCode()
	err = appendLine(call{
		Plugin: plugin, Command: os.Getenv("CNI_COMMAND"), ContainerID: os.Getenv("CNI_CONTAINERID"),
		IfName: os.Getenv("CNI_IFNAME"), Netns: os.Getenv("CNI_NETNS"),
		Stdin: stdin, Stdout: stdout.String(), Stderr: stderr.String(), Code: code, Took: took,
	})
	if err != nil {
		return 0, err
	}
	_, err = os.Stdout.Write(stdout.Bytes())
	_, err2 := os.Stderr.Write(stderr.Bytes())
	return code, errors.Join(err, err2)
}

// appendLine writes the line at once: plugins run beside each other.
func appendLine(c call) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
