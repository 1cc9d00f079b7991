package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/libnet-cni/libnet/internal/lntest"
)

// Whatever is wrong with the way to etcd, the error names the endpoint and the
// cause, and is there soon: of a session, and of a look without one.
func TestCauses(t *testing.T) {
	ca, other := newIssuer(t), newIssuer(t)
	ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 15, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	ca.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	l := newLab(t, 15, 1, "--listen-client-urls=https://127.0.15.1:2379,https://127.0.15.2:2379", "--cert-file="+ca.file("server"), "--key-file="+ca.file("server-key"),
		"--trusted-ca-file="+ca.file("ca"), "--client-cert-auth")
	mute, err := net.Listen("tcp", "127.0.15.3:0") // connections come about, and nothing is said
	l.must(err)
	t.Cleanup(func() { _ = mute.Close() })
	later := func() (*tls.Config, error) {
		c, err := ca.client("client")()
		c.Time = func() time.Time { return time.Now().Add(48 * time.Hour) }
		return c, err
	}
	for name, tt := range map[string]struct {
		url  string
		tls  func() (*tls.Config, error)
		says string
	}{
		"unknown authority": {l.urls[0], other.client(""), "signed by an unknown authority"},
		"other name":        {"https://127.0.15.2:2379", ca.client("client"), "is of another name"},
		"expired":           {l.urls[0], later, "certificate has expired"},
		"no certificate":    {l.urls[0], ca.client(""), "certificate required"},
		"http":              {"http://127.0.15.1:2379", nil, "does it speak TLS?"},
		"https":             {strings.Replace(l.members[0].Health(), "http", "https", 1), ca.client("client"), "it speaks no TLS"},
		"refused":           {"http://127.0.15.1:9", nil, "connection refused"},
		"mute":              {"http://" + mute.Addr().String(), nil, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := l.conf(1)
			c.Endpoints, c.TLS = []string{tt.url}, tt.tls
			start := time.Now()
			_, _ = New(c).View(context.Background())
			if took := time.Since(start); took > time.Minute { // some seconds on an idle machine
				t.Errorf("it took %s", took)
			}
			session := func() error { return New(c).Session(context.Background(), knowsNothing, nil) }
			view := func() error { _, err := New(c).View(context.Background()); return err }
			says := func(err error) bool {
				var unreachable *UnreachableError
				return errors.As(err, &unreachable) && strings.HasPrefix(err.Error(), tt.url+": ") && strings.Contains(err.Error(), tt.says)
			}
			for _, ask := range []func() error{view, session} {
				var err error
				// On a busy machine the time for a look may pass before the cause is there.
				if !lntest.Await(lntest.WaitForAnswer, func() bool { err = ask(); return says(err) }) {
					t.Errorf("%v, want %q", err, tt.says)
				}
			}
		})
	}
}

// A cause has nothing in it that differs from one time to the next.
func TestCauseIsStable(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}
	for want, err := range map[string]error{
		"no such host: h.invalid": &url.Error{Op: "Get", URL: "u", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "h.invalid", IsNotFound: true}}},
		"broken":                  &net.OpError{Op: "read", Source: local, Err: errors.New("broken")},
		"no answer":               &url.Error{Op: "Get", URL: "u", Err: context.DeadlineExceeded},
	} {
		if got := cause(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
