package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UnreachableError says why each of etcd's members could not be asked. gRPC
// tries again until the time is over, and then knows only that it is over.
type UnreachableError struct {
	// Causes are one for each endpoint: "https://192.0.2.1:2379: connection refused".
	Causes []string
	Err    error // what was not done
}

// Error has the causes first.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s (%v)", strings.Join(e.Causes, "; "), e.Err)
}

// Unwrap returns what was not done.
func (e *UnreachableError) Unwrap() error { return e.Err }

// probeWait is how long an endpoint may take to say what is wrong.
const probeWait = 1500 * time.Millisecond

// explain asks each endpoint itself, all at once, if err says no more than that
// no answer came.
func (r *Registry) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || !silent(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	causes := make([]string, len(r.conf.Endpoints))
	var all sync.WaitGroup
	for i, endpoint := range r.conf.Endpoints {
		all.Go(func() { causes[i] = endpoint + ": " + r.probe(ctx, endpoint) })
	}
	all.Wait()
	return &UnreachableError{Causes: causes, Err: err}
}

// silent says that an error is about a time that is over, or a connection that
// is not there.
func silent(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var s interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &s) {
		return false
	}
	code := s.GRPCStatus().Code()
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// probe says how an endpoint answers to the simplest question, which needs no
// right.
func (r *Registry) probe(ctx context.Context, endpoint string) string {
	transport := &http.Transport{DisableKeepAlives: true}
	if r.conf.TLS != nil {
		c, err := r.conf.TLS()
		if err != nil {
			return err.Error()
		}
		transport.TLSClientConfig = c
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/version", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	switch {
	case (errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)) && req.URL.Scheme == "http":
		return "it ends the connection: does it speak TLS? Then want https, see --endpoints and --cacert"
	case err != nil:
		return cause(err)
	}
	defer func() { _ = resp.Body.Close() }()
	const enough = 256
	body, _ := io.ReadAll(io.LimitReader(resp.Body, enough))
	switch {
	case resp.StatusCode == http.StatusOK:
		return "it answers, but not in time what it was asked: has its cluster a leader?"
	case strings.Contains(string(body), "HTTPS server"):
		return "it speaks TLS: want https, see --endpoints and --cacert"
	}
	return "it answers " + resp.Status + ": is it etcd?"
}

// cause is what an error says without what differs from one time to the next,
// as the port on this side.
func cause(err error) string {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		expired x509.CertificateInvalidError
		alert   tls.AlertError
		dns     *net.DNSError
		op      *net.OpError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &unknown):
		return "its certificate is signed by an unknown authority: see --cacert"
	case errors.As(err, &name):
		return "its certificate is of another name: " + name.Error()
	case errors.As(err, &expired):
		return "its certificate cannot be used: " + expired.Error()
	case errors.As(err, &alert):
		return "it refuses the connection: " + alert.Error() + ": see --cert and --key"
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"): // http has no type for it
		return "it speaks no TLS: want http, see --endpoints"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host: " + dns.Name
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return "no answer"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}
