package lntest

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inUser marks the process of OwnUser.
const inUser = "LNTEST_USER"

// OwnUser runs the test once more, in a process of user, network and mount namespaces of its own,
// whose limits the test may change: false is the call outside, which has done all. It needs
// unprivileged user namespaces, or root.
func OwnUser(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inUser) != "" {
		return true
	}
	self := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inUser+"=1", reexeced+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		UidMappings: self, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no tests to run") {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// LimitInotify has the kernel give the process of OwnUser so many inotify instances.
func LimitInotify(t *testing.T, instances int) {
	t.Helper()
	limit(t, "max_inotify_instances", instances)
}

// LimitWatches is LimitInotify for the watches of all instances.
func LimitWatches(t *testing.T, watches int) { t.Helper(); limit(t, "max_inotify_watches", watches) }

func limit(t *testing.T, what string, most int) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+what, []byte(strconv.Itoa(most)), 0); err != nil {
		t.Fatal(err)
	}
}
