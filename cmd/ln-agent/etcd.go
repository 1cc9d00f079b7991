package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/transport"

	"github.com/libnet-cni/libnet/internal/agent"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/registry/etcd"
)

// etcdSettings are the flags about etcd.
type etcdSettings struct {
	endpoints          []string
	prefix             string
	cacert, cert, key  string
	user, passwordFile string
	getenv             func(string) string
}

// passwordVariable is where a password may be, if not in a file.
const passwordVariable = "LN_AGENT_ETCD_PASSWORD"

func (e *etcdSettings) flags(f *pflag.FlagSet, getenv func(string) string) {
	e.getenv = getenv
	f.StringSliceVar(&e.endpoints, "endpoints", []string{"http://127.0.0.1:2379"}, "`URLs` of etcd's members")
	f.StringVar(&e.prefix, "prefix", etcd.DefaultPrefix, "`prefix` of all keys in etcd")
	f.StringVar(&e.cacert, "cacert", "", "`file` of the CA that signed the certificates of etcd's members")
	f.StringVar(&e.cert, "cert", "", "`file` of this client's certificate")
	f.StringVar(&e.key, "key", "", "`file` of its key")
	f.StringVar(&e.user, "user", "", "`name` of the user in etcd")
	f.StringVar(&e.passwordFile, "password-file", "", "`file` with the user's password (else $"+passwordVariable+")")
}

// config is what the flags say of etcd.
func (e *etcdSettings) config() (etcd.Config, error) {
	c := etcd.Config{Endpoints: e.endpoints, User: e.user, Prefix: strings.TrimSuffix(e.prefix, "/")}
	secure := e.cacert != "" || e.cert != ""
	for _, s := range e.endpoints {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return c, usagef("--endpoints %q: want a URL as https://192.0.2.1:2379", s)
		}
		if secure && u.Scheme == "http" {
			return c, usagef("--endpoints %q: want https, as there is a certificate", s)
		}
		secure = secure || u.Scheme == "https"
	}
	if !strings.HasPrefix(c.Prefix, "/") {
		return c, usagef("--prefix %q: want one that begins with a slash", e.prefix)
	}
	if (e.cert == "") != (e.key == "") {
		return c, usagef("--cert and --key: want both, or none")
	}
	if secure {
		// Each session reads the files anew.
		c.TLS = func() (*tls.Config, error) {
			return transport.TLSInfo{CertFile: e.cert, KeyFile: e.key, TrustedCAFile: e.cacert}.ClientConfig()
		}
		if _, err := c.TLS(); err != nil {
			return c, fmt.Errorf("certificates for etcd: %w", err)
		}
	}
	return c, e.password(&c)
}

func (e *etcdSettings) password(c *etcd.Config) error {
	if e.user == "" {
		return nil
	}
	c.Password = e.getenv(passwordVariable)
	if e.passwordFile != "" {
		data, err := os.ReadFile(e.passwordFile)
		if err != nil {
			return err
		}
		c.Password = strings.TrimRight(string(data), "\r\n")
	}
	if c.Password == "" {
		return usagef("--user %s: want --password-file or $%s", e.user, passwordVariable)
	}
	return nil
}

// self is what this host says of itself.
func (s *settings) self() (etcd.Self, error) {
	self := etcd.Self{Name: s.nodeName, Version: version}
	var err error
	if self.Name == "" {
		if self.Name, err = os.Hostname(); err != nil {
			return self, fmt.Errorf("host name: %w; see --node-name", err)
		}
	}
	if !model.ValidName(self.Name) {
		return self, usagef("--node-name %q: want a letter or digit, then letters, digits, '_', '.', '-'", self.Name)
	}
	if s.nodeAddress == "" {
		self.Address, err = wayOut(s.etcd.endpoints)
	} else {
		self.Address, err = netip.ParseAddr(s.nodeAddress)
	}
	if a := self.Address; err != nil || !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
		return self, usagef("--node-address %q: want an address of this host at which the others reach it (%v)", s.nodeAddress, err)
	}
	if self.Instance, err = agent.Instance(); err != nil {
		return self, err
	}
	return self, nil
}

// mostAlso is how many addresses of a host beside the first one the others are told at most.
const mostAlso = 32

// alsoOf returns the addresses of this host other than self, in order: where it is the client of a
// service whose container is its own, the others have to know it by each of them.
func alsoOf(self netip.Addr) (all []netip.Addr) {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || l.Flags&net.FlagLoopback != 0 { // on lo are addresses of services
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Unmap() != self && p.Addr().IsGlobalUnicast() {
				all = append(all, p.Addr().Unmap())
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	return all[:min(len(all), mostAlso)]
}

// wayOut returns this host's address on the way to etcd or, where that is on
// this host, on the way out.
func wayOut(endpoints []string) (netip.Addr, error) {
	var places []string
	for _, e := range endpoints {
		if u, err := url.Parse(e); err == nil {
			places = append(places, net.JoinHostPort(u.Hostname(), "9"))
		}
	}
	var last error
	for _, place := range append(places, "198.51.100.1:9", "[2001:db8::1]:9") { // for documentation: nothing is sent
		c, err := net.Dial("udp", place)
		if err != nil {
			last = err
			continue
		}
		from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = c.Close()
		if !from.IsLoopback() {
			return from, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no way out was found: %w", last)
}
