package integration

import (
	"os"
	"path/filepath"
	"testing"
)

// A binary that grows by a tenth has linked something new: this is the time to ask whether it
// has to. In MB, as `make build` links them.
func TestBinariesStaySmall(t *testing.T) {
	bin, _ := dirs(t)
	for name, most := range map[string]float64{"bridge-ln": 6.15, "overlay-ln": 6.55, "portmap-ln": 4.6, "ipam-ln": 3.25, "lnctl": 10.6} {
		info, err := os.Stat(filepath.Join(bin, name))
		if err != nil {
			t.Fatal(err)
		}
		if mb := float64(info.Size()) / 1e6; mb > most {
			t.Errorf("%s has %.2f MB, more than %.2f", name, mb, most)
		}
	}
}
