package cni

import (
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// BenchmarkStack needs the stack of an ADD in a goroutine that has a small one: widened
// at once, and grown step by step. An ADD is there when its stack has grown, so each step
// copies all the frames that are on it.
func BenchmarkStack(b *testing.B) {
	in := func(fn func()) func() {
		return func() {
			done := make(chan struct{})
			go func() { defer close(done); fn() }()
			<-done
		}
	}
	lntest.Cold(b, map[string]func(){
		"widened": in(func() { widenStack(0); deep(addFrames) }),
		"grown":   in(func() { deep(addFrames) }),
	})
}

// addFrames of deep are as much stack as an ADD needs, 16 KiB.
const addFrames = 64

//go:noinline
func deep(n int) byte {
	var frame [192]byte
	if n > 0 {
		frame[n] = deep(n - 1)
	}
	return lastByte(frame[:n+1])
}
