package libnet_test

import (
	"os"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(killedStep); step != "" {
		beKilled(step)
		os.Exit(1)
	}
	os.Exit(lntest.Main(m))
}
