package flock

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
)

// holder describes the holder of a lock, as the end of an error message; "" if that
// cannot be found out.
func holder(path string, w wanted) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Ino != w.ino || uint64(st.Dev) != w.dev {
		return "" // another file by now
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	if w.at != wholeFile {
		return holderByFiles(file, "OFDLCK", w.at)
	}
	for line := range strings.Lines(read("/proc/locks")) {
		l, ok := parseLock(line)
		if ok && l.kind == "FLOCK" && l.file == file && l.pid > 0 {
			return "; held by " + describe(l.pid)
		}
	}
	// The kernel gives /proc/locks out a page at a time, and leaves a lock out if
	// one before it is freed between two pages.
	return holderByFiles(file, "FLOCK", 0)
}

// holderByFiles looks for the holder of a lock of this kind and byte among the open
// files of all processes: it takes longer than /proc/locks, leaves no lock out, and
// finds those of which /proc/locks names no process.
func holderByFiles(file, kind string, at int64) string {
	processes, _ := plain.ReadDir("/proc") // what is not to be seen is not found
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name() + "/fdinfo/"
		files, _ := plain.ReadDir(dir)
		for _, f := range files {
			if showsLock(read(dir+f.Name()), file, kind, at) {
				return "; held by " + describe(pid)
			}
		}
	}
	return ""
}

// showsLock says whether a file of fdinfo tells of a lock of this kind and byte.
func showsLock(info, file, kind string, at int64) bool {
	for line := range strings.Lines(info) {
		text, isLock := strings.CutPrefix(line, "lock:")
		l, ok := parseLock(text)
		if isLock && ok && l.kind == kind && l.file == file && at >= l.first && at <= l.last {
			return true
		}
	}
	return false
}

// held is a line of /proc/locks (proc_locks(5)).
type held struct {
	kind, file  string
	pid         int
	first, last int64 // bytes
}

// parseLock reads "1: FLOCK ADVISORY WRITE 123 08:01:456 0 EOF"; false for any
// other line, as those of a process that waits: "1: -> FLOCK …".
func parseLock(line string) (l held, ok bool) {
	f := strings.Fields(line)
	if len(f) != 8 {
		return held{}, false
	}
	pid, err := strconv.Atoi(f[4])
	first, firstErr := strconv.ParseInt(f[6], 10, 64)
	last, lastErr := strconv.ParseInt(f[7], 10, 64)
	if f[7] == "EOF" {
		last, lastErr = 1<<63-1, nil
	}
	ok = err == nil && firstErr == nil && lastErr == nil
	return held{kind: f[1], file: f[5], pid: pid, first: first, last: last}, ok
}

func read(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	data, _ := io.ReadAll(io.LimitReader(file, 1<<20))
	return string(data)
}

// describe names a process: its ID, command line and, if it is stopped, that.
func describe(pid int) string {
	if pid == os.Getpid() {
		return "this process"
	}
	out := "process " + strconv.Itoa(pid)
	if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmd) > 0 {
		cmd = bytes.ReplaceAll(bytes.TrimRight(cmd, "\x00"), []byte{0}, []byte{' '})
		out += fmt.Sprintf(" (%.80s)", cmd)
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && (stat[i+2] == 'T' || stat[i+2] == 't') {
		out += ", which is stopped"
	}
	return out
}
