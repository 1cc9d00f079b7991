package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/lntest"
)

const (
	codeLater  = 11
	codeStatus = 50
)

// refused fails the test unless the call ends with the code and a message that
// names all of want.
func (h *host) refused(c call, code uint, want ...string) {
	h.t.Helper()
	r := h.run(c)
	if r.code != code {
		h.t.Errorf("%s %s: code %d, want %d: %s", c.plugin, c.command, r.code, code, r.msg)
	}
	for _, w := range want {
		if !strings.Contains(r.msg, w) {
			h.t.Errorf("%s %s: message %q does not name %q", c.plugin, c.command, r.msg, w)
		}
	}
}

// TestExhausted fills a pool of five: the error names the holders and what to
// do, and dead holders go first.
func TestExhausted(t *testing.T) {
	for _, plugin := range []string{"ipam-ln", "bridge-ln"} {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			conf := pool(t, "10.1.0.0/29")
			status := call{plugin: plugin, command: "STATUS", stdin: conf}
			for i := range 5 {
				h.must(status)
				ns := fmt.Sprintf("n%d", i)
				h.must(attachment(plugin, fmt.Sprintf("c%d", i), h.netns(ns), conf).as("ADD"))
			}
			full := []string{"no address left", "10.1.0.0/29", "5 of 5", "5 owners", "c0/eth0", "/run/netns/n0", "GC", "enlarge"}
			before := h.snapshot()
			more := attachment(plugin, "more", h.netns("more"), conf)
			h.refused(more.as("ADD"), codeExhausted, full...)
			if r := h.run(status); r.code != 0 || !strings.Contains(r.stderr, "5 of 5 addresses are held") { // 50 would have kubelet evict all five
				t.Errorf("STATUS of a full pool: code %d, %q; want success and a warning", r.code, r.stderr)
			}
			h.same(before)

			h.loseNetns("n3")
			h.must(status)
			if a := h.theAddress(h.must(more.as("ADD"))); a.String() != "10.1.0.5" {
				t.Errorf("got %s, want 10.1.0.5, whose holder is dead", a)
			}
			h.must(attachment(plugin, "c3", "", conf).as("DEL"))
			if held := h.holders(); len(held) != 5 || held["more"].String() != "10.1.0.5" {
				t.Errorf("after DEL of the dead one: %v", held)
			}
		})
	}
}

// TestDiskFull has no room for a lease; it loses none.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const dir = "/run/leases"
	h.check(os.Mkdir(dir, 0o755))
	h.check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,nr_inodes=100"))
	conf, ns := edit(t, good, keys{"ipam.dataDir": dir}), h.netns("c")
	status := call{plugin: "ipam-ln", command: "STATUS", stdin: conf}
	h.must(status)
	add := func(cid string) call { return attachment("ipam-ln", cid, ns, conf).as("ADD") }
	h.must(add("c1"))
	h.must(add("c2"))
	h.fill(dir + "/ballast")
	before := names(h, dir+"/net")
	for range 3 {
		h.refused(add("c3"), codeIO, dir, "no space left")
		h.refused(status, codeStatus, dir, "no space left")
	}
	if now := names(h, dir+"/net"); now != before {
		t.Errorf("the directory was %s and is %s", before, now)
	}
	for _, cid := range []string{"c1", "c2"} {
		h.must(add(cid).as("CHECK"))
	}
	h.must(add("c1")) // has its address already
	h.must(add("c1").as("DEL"))
	if _, err := os.Stat(dir + "/net/10.1.0.2"); err == nil {
		t.Error("DEL on a full disk left the lease")
	}
	h.check(os.Remove(dir + "/ballast"))
	got := map[string]string{}
	for _, cid := range []string{"c2", "c3", "c4"} {
		a := h.theAddress(h.must(add(cid))).String()
		if got[a] != "" {
			t.Errorf("%s is given to %s and %s", a, got[a], cid)
		}
		got[a] = cid
	}
}

// fill takes all the space and all the inodes of a file system.
func (h *host) fill(path string) {
	h.t.Helper()
	f, err := os.Create(path)
	h.check(err)
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	h.check(f.Close())
}

func names(h *host, dir string) string {
	h.t.Helper()
	files, err := os.ReadDir(dir)
	h.check(err)
	return fmt.Sprint(files)
}

func TestReadOnlyPool(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const dir = "/run/leases"
	h.check(os.Mkdir(dir, 0o755))
	h.check(unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	conf, ns := edit(t, good, keys{"ipam.dataDir": dir}), h.netns("c")
	status := call{plugin: "ipam-ln", command: "STATUS", stdin: conf}
	c1, c2 := attachment("ipam-ln", "c1", ns, conf), attachment("ipam-ln", "c2", ns, conf)
	h.must(c1.as("ADD"))
	h.check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	h.refused(c2.as("ADD"), codeIO, dir, "read-only")
	h.refused(status, codeStatus, dir, "read-only")
	h.refused(c1.as("DEL"), codeIO, dir, "read-only")
	h.must(c1.as("CHECK"))
	h.check(unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	h.must(c1.as("CHECK"))
	h.must(c2.as("ADD"))
	h.must(c1.as("DEL"))
	h.must(status)
}

// TestForeignPool has a directory of another user's. With root's usual
// capabilities it is used; without, that is an error and nothing is lost.
func TestForeignPool(t *testing.T) {
	lntest.NeedsRoot(t, "a second user is not mapped")
	t.Parallel()
	h := newHost(t)
	c1, c2 := attachment("ipam-ln", "c1", h.netns("c"), good), attachment("ipam-ln", "c2", netnsPath("c"), good)
	status := call{plugin: "ipam-ln", command: "STATUS", stdin: good}
	h.must(c1.as("ADD"))
	h.check(os.Chown(leaseDir, 12345, 12345))
	h.check(os.Chmod(leaseDir, 0o700))
	h.must(c2.as("ADD"))
	h.must(c1.as("CHECK"))
	h.must(status)
	h.must(c1.as("DEL"))
	before := h.snapshot()

	for _, capability := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH} {
		h.check(unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)) // for what this thread starts
	}
	h.refused(c1.as("ADD"), codeIO, leaseDir, "permission denied")
	h.refused(c2.as("CHECK"), codeIO, leaseDir, "permission denied")
	h.refused(c2.as("DEL"), codeIO, leaseDir, "permission denied")
	h.refused(status, codeStatus, leaseDir, "permission denied")
	h.same(before)
	h.check(os.Chown(leaseDir, 0, 0))
	h.must(c2.as("DEL"))
}

// holdLock is set in the process that TestLockHeld starts; it names the lock.
const holdLock = "HOLD_LOCK"

// TestHoldLock is that process: it takes the lock and stops.
func TestHoldLock(t *testing.T) {
	path := os.Getenv(holdLock)
	if path == "" {
		t.Skip("for TestLockHeld")
	}
	f, err := os.Open(path)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err == nil {
		_, err = os.Stdout.WriteString("locked\n")
	}
	if err == nil {
		err = unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
	for err == nil {
		_ = unix.Pause() // another thread may take the signal, a moment later
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLockHeld waits for a lock that a stopped process holds: not for ever,
// and the error says whose it is.
func TestLockHeld(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds")
	}
	t.Parallel()
	h := newHost(t)
	c1 := attachment("ipam-ln", "c1", h.netns("c"), good)
	h.must(c1.as("ADD"))
	holder := exec.Command("/proc/self/exe", "-test.run=^TestHoldLock$")
	holder.Env = append(os.Environ(), holdLock+"="+leaseDir+"/lock")
	said, err := holder.StdoutPipe()
	h.check(err)
	h.check(holder.Start())
	defer func() { _ = holder.Wait() }()
	defer func() { _ = holder.Process.Kill() }()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(holder.Process.Pid, &ws, unix.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("the holder did not stop: %v", err)
	}

	start := time.Now()
	calls := []call{c1.as("DEL"), c1.as("CHECK"), {plugin: "ipam-ln", command: "STATUS", stdin: good}, attachment("bridge-ln", "c2", h.netns("c2"), good).as("ADD")}
	for i, r := range h.inCrowd(calls, false) {
		want := uint(codeLater)
		if calls[i].command == "STATUS" {
			want = codeStatus
		}
		if r.code != want {
			t.Errorf("%s: code %d, want %d", calls[i].command, r.code, want)
		}
		for _, w := range []string{leaseDir + "/lock", fmt.Sprintf("process %d", holder.Process.Pid), "TestHoldLock", "stopped"} {
			if !strings.Contains(r.msg, w) {
				t.Errorf("%s: message %q does not name %q", calls[i].command, r.msg, w)
			}
		}
	}
	if took := time.Since(start); took < 9*time.Second {
		t.Errorf("it took %s, want ten seconds: a holder may be slow", took)
	}
	h.check(holder.Process.Kill())
	h.must(c1.as("CHECK")) // waits for the end of the holder
	h.must(c1.as("DEL"))
	if rest := leases(t, "net"); len(rest) > 0 {
		t.Errorf("leases left: %v", rest)
	}
}
