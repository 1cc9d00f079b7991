//go:build amd64 || arm64

package aside

// able says that begin is there.
const able = true

// begin clones the calling thread with all signals blocked. The child makes c and exits;
// the parent gets its signals back, and the child's process ID or a negated errno. Nothing
// written in assembly is preempted (runtime/preempt.go).
func begin(flags uintptr, pidfd *int32, masks *[2]uint64, c *call) (pid uintptr)
