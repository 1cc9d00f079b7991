// Package apart runs a program in namespaces of its own.
package apart

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run runs this program again in new network, mount and process namespaces, with the variable env
// set to 1, and returns its exit status. With the process namespace everything ends that it
// started, should it be killed. name is how an error begins.
func Run(name, env string, stdout, stderr io.Writer) int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return 1 // it has said why
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, name+" (needs root):", err)
		return 1
	}
	return 0
}
