package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// issuer is a CA whose certificates are files of a directory.
type issuer struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, dir: t.TempDir()}
	i.cert, i.key = i.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return i
}

func (i *issuer) file(name string) string { return filepath.Join(i.dir, name+".pem") }

// issue writes name.pem and name-key.pem.
func (i *issuer) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := i.cert, i.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	keyDER, keyErr := x509.MarshalECPrivateKey(key)
	err = errors.Join(err, keyErr,
		os.WriteFile(i.file(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(i.file(name+"-key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	if err != nil {
		i.t.Fatal(err)
	}
	return cert, key
}

func (i *issuer) client(name string) func() (*tls.Config, error) {
	info := transport.TLSInfo{TrustedCAFile: i.file("ca")}
	if name != "" {
		info.CertFile, info.KeyFile = i.file(name), i.file(name+"-key")
	}
	return func() (*tls.Config, error) { return info.ClientConfig() }
}

// By certificates on both sides, and as a user with the right to write below our
// prefix and nowhere else. Without a certificate, or with another password, a client
// gets no access.
func TestSecure(t *testing.T) {
	ca := newIssuer(t)
	ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 8, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	ca.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	l := newLab(t, 8, 1, "--cert-file="+ca.file("server"), "--key-file="+ca.file("server-key"), "--trusted-ca-file="+ca.file("ca"), "--client-cert-auth")
	ctx := context.Background()
	config, err := ca.client("client")()
	l.must(err)
	admin, err := clientv3.New(clientv3.Config{Endpoints: l.urls, TLS: config, DialTimeout: patience})
	l.must(err)
	defer func() { _ = admin.Close() }()
	for _, user := range []string{"root", "libnet"} {
		_, err := admin.UserAdd(ctx, user, "secret-of-"+user)
		l.must(err)
		_, err = admin.RoleAdd(ctx, user)
		l.must(err)
		_, err = admin.UserGrantRole(ctx, user, user)
		l.must(err)
	}
	_, err = admin.RoleGrantPermission(ctx, "libnet", "/libnet/v1/", clientv3.GetPrefixRangeEnd("/libnet/v1/"), clientv3.PermissionType(clientv3.PermReadWrite))
	l.must(err)
	_, err = admin.AuthEnable(ctx)
	l.must(err)

	good := l.conf(1)
	good.TLS, good.User, good.Password = ca.client("client"), "libnet", "secret-of-libnet"
	a := l.start(good)
	a.awaitMember("h1")
	a.agree("net1", terms("10.5.0.0/16", 24))
	if _, err := a.claim(); err != nil {
		t.Error(err)
	}
	elsewhere := good
	elsewhere.Prefix = "/other"
	l.start(elsewhere).awaitEnd(rpctypes.ErrPermissionDenied)
	wrong := l.conf(2)
	wrong.TLS, wrong.User, wrong.Password = good.TLS, good.User, "guessed"
	l.start(wrong).awaitEnd(rpctypes.ErrAuthFailed)
	bare := good
	bare.TLS = ca.client("")
	bound, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := New(bare).View(bound); err == nil {
		t.Error("without a certificate everything can be read")
	}
	a.stop()
	if err := errors.Join(a.Leave(ctx, "net1"), a.Forget(ctx)); err != nil {
		t.Error(err)
	}
}
