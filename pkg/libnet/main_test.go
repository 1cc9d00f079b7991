package libnet_test

import (
	"os"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(killedStep); step != "" {
		os.Exit(beKilled(step))
	}
	os.Exit(lntest.Main(m))
}
