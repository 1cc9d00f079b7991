// Command launch runs the program that its arguments name, with its own input
// and output, and writes to file descriptor 3 what the process and all that it
// waited for took: microseconds of CPU time and KiB of peak memory.
//
// The kernel counts in a process's peak what its parent had when it was
// started, so that the parent must be small: no fmt, no os/exec.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	const report = 3
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		_, _ = os.Stderr.WriteString(args[0] + ": " + err.Error() + "\n")
		return 1
	}
	var status syscall.WaitStatus
	var used syscall.Rusage
	for {
		_, err = syscall.Wait4(pid, &status, 0, &used)
		if err != syscall.EINTR { //nolint:errorlint // wait4 wraps nothing
			break
		}
	}
	cpu := (used.Utime.Nano() + used.Stime.Nano()) / 1000
	line := strconv.FormatInt(cpu, 10) + " " + strconv.FormatInt(used.Maxrss, 10) + "\n"
	if _, err := syscall.Write(report, []byte(line)); err != nil || !status.Exited() {
		return 1
	}
	return status.ExitStatus()
}
