package main

import (
	"io"
	"os"
	"testing"
)

func TestCompare(t *testing.T) {
	for got, fails := range map[int]bool{900: false, 1000: false, 1029: false, 1031: true, 2000: true} {
		if err := compare(io.Discard, "instructions", got, 1000); (err != nil) != fails {
			t.Errorf("%d of 1000: %v, want an error: %t", got, err, fails)
		}
	}
}

func TestParse(t *testing.T) {
	text, err := os.ReadFile("add.txt")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := parse(string(text)); err != nil || f.instructions < 100000 || f.calls < 100 {
		t.Errorf("add.txt: %+v, %v", f, err)
	}
	for _, bad := range []string{"", "instructions 0\nsystem calls 5\n", "instructions many\n"} {
		if f, err := parse(bad); err == nil {
			t.Errorf("%q is %+v", bad, f)
		}
	}
}

func TestSumOf(t *testing.T) {
	const table = "    calls syscall\n--------- ----------------\n       30 read\n       12 futex\n        9 openat\n--------- ----------------\n       51 total\n"
	if got := sumOf(table); got != 39 {
		t.Errorf("%d calls, want 39", got)
	}
}
