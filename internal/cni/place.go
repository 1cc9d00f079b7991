package cni

import (
	"path/filepath"
	"strings"
)

// stateDirKey names the directory of the records.
const stateDirKey = "stateDir"

// StateDir returns the directory of the records; empty if the configuration
// names none. A relative one is refused: what it means depends on where the
// runtime was started.
func (c *Call) StateDir() string {
	var dir string
	c.Conf.String(stateDirKey, &dir)
	if dir != "" && !isPlace(dir) {
		c.Conf.Refuse(stateDirKey, "an absolute path")
	}
	return dir
}

// LooseStateDir is StateDir for DEL and GC, empty for what StateDir refuses.
func (c *Call) LooseStateDir() string {
	dir := c.LooseString(stateDirKey)
	if !isPlace(dir) {
		return ""
	}
	return dir
}

func isPlace(dir string) bool { return filepath.IsAbs(dir) && canBe(dir) }

// canBe says whether a path can be one (path_resolution(7)).
func canBe(path string) bool {
	if len(path) >= 4096-512 || strings.ContainsRune(path, 0) { // with what we put below it
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if len(name) > 255 {
			return false
		}
	}
	return true
}
