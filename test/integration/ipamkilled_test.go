package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// An IPAM plugin does not outlive bridge-ln, which ran it and was killed: it would take
// an address after the DEL that follows.
func TestIPAMPluginOfKilledADD(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	real := program(t, "host-local")
	h.check(syscall.Mkfifo(dir+"/go", 0o600))
	script := fmt.Sprintf("#!/bin/sh\nif [ $CNI_COMMAND = ADD ]; then kill -9 $PPID; read line <%s/go; fi\nexec %s\n", dir, real)
	h.check(lntest.WriteProgram(filepath.Join(dir, "slow"), []byte(script)))
	conf := `{"cniVersion":"1.1.0","name":"net","type":"bridge-ln","bridge":"brk","isGateway":true,"ipam":{"type":"slow","subnet":"10.85.0.0/24","dataDir":"/run/leases"}}`
	add := attachment("bridge-ln", "c", h.netns("c"), conf)
	add.env = []string{"CNI_PATH=" + dir + ":" + cniPath(t)}

	r, w, err := os.Pipe() // which each process inherits: at the end all have ended
	h.check(err)
	cmd := exec.Command(program(t, "bridge-ln"))
	cmd.Env, cmd.Stdin, cmd.ExtraFiles = add.as("ADD").environ(t), strings.NewReader(conf), []*os.File{w}
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("ADD: %v, want it killed", err)
	}
	h.check(errors.Join(w.Close(), r.SetReadDeadline(time.Now().Add(lntest.WaitForAnswer))))
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the IPAM plugin goes on: %v", err)
	}
	h.check(r.Close())
	h.must(add.as("DEL"))
	if left, _ := filepath.Glob("/run/leases/net/10.*"); len(left) > 0 {
		t.Errorf("addresses are left: %v", left)
	}
}
