package operator

import (
	"os"
	"testing"

	"github.com/libnet-cni/libnet/internal/lntest"
)

func TestMain(m *testing.M) { os.Exit(lntest.Main(m)) }
