package capture

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Columns of the kernel's list of queues.
const (
	columnWaiting = 2 // packets without a verdict
	columnCame    = 7 // packets so far
)

// waiting is how many packets wait for a verdict in our queues.
func waiting(t *testing.T) int {
	t.Helper()
	return sumOf(t, columnWaiting)
}

// sumOf is the sum of a column over our queues.
func sumOf(t *testing.T, column int) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		one, err := strconv.Atoi(strings.Fields(line)[column])
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// Queries that come at once, ours and others in any order, are answered once each: ours do
// not go on with the others, and no other one waits. None stays in the queue.
func TestVerdicts(t *testing.T) {
	l := newLab(t, "0")
	l.start(Config{})
	for _, ours := range []func(int) bool{
		func(i int) bool { return i%2 == 0 },
		func(i int) bool { return i%7 != 0 },
		func(i int) bool { return i/10%2 == 0 },
		func(i int) bool { return i != 199 }, // the last one is not
		func(int) bool { return true },
	} {
		want := map[string]bool{} // from the server outside, by message
		for i := range 200 {
			m := fmt.Sprint("message ", i)
			if ours(i) {
				m = fmt.Sprint("ours ", i)
			}
			want[m] = !ours(i)
		}
		l.must(lntest.In(t, l.a, func() error {
			c, err := net.Dial("udp", "192.0.2.2:53")
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			for m := range want {
				if _, err := c.Write([]byte(m)); err != nil {
					return err
				}
			}
			buf := make([]byte, 2048)
			patience := lntest.WaitForAnswer
			for {
				_ = c.SetReadDeadline(time.Now().Add(patience))
				n, err := c.Read(buf)
				if err != nil {
					break
				}
				_, m, _ := strings.Cut(string(buf[:n]), " to ")
				outside, asked := want[m]
				if !asked || outside != strings.HasPrefix(string(buf[:n]), "server saw") {
					t.Errorf("answer %q, a second one or of the wrong server", buf[:n])
				}
				if delete(want, m); len(want) == 0 {
					patience = 50 * time.Millisecond // for more than were asked for
				}
			}
			return nil
		}))
		if len(want) > 0 {
			t.Errorf("no answer to %v", want)
		}
		if !lntest.Await(lntest.WaitForAnswer, func() bool { return waiting(t) == 0 }) {
			t.Errorf("%d packets stay in the queues", waiting(t))
		}
	}
}
