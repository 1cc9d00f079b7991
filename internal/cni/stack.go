package cni

// widenStack gives the calling goroutine, for good, a stack of 32 KiB, by a frame that needs half
// of that; n is 0. An ADD needs 16 KiB. Grown to that step by step, each time with all its frames
// looked up and copied, the stack costs 7 % of an ADD's instructions and 5 % of its CPU time
// (BenchmarkStack); here there are three frames on it.
//
//go:noinline
func widenStack(n int) byte { //nolint:unparam // with a result the frame is not optimised away
	if n == 0 {
		return 0 // before room is cleared
	}
	var room [16 << 10]byte
	return lastByte(room[:n])
}

//go:noinline
func lastByte(b []byte) byte { return b[len(b)-1] }
