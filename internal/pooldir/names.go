package pooldir

import "time"

const (
	// DefaultDataDir is where host-local keeps its pools.
	DefaultDataDir = "/var/lib/cni/networks"
	// DefaultLockTimeout bounds the wait for a lock.
	DefaultLockTimeout = 10 * time.Second
	// Draft is the file that is to replace another one.
	Draft = "tmp"
)

// IndexDir holds the indexes of all pools of a data directory. No network can
// have this name, and host-local, which reads every file below a pool's
// directory, does not see it.
const IndexDir = ".libnet"

// ValidName holds the rule of the CNI specification for network names, and
// the limit of file names.
func ValidName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 255
}
