package lntest

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that a test then executes. No other test starts a process
// while the file is open for writing: its child would hold the descriptor until exec, and
// until then the kernel refuses to execute the file ("text file busy").
func WriteProgram(path string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, data, 0o755)
}
