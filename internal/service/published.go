package service

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Published is a port of the host that leads to a port of a service.
type Published struct {
	Protocol firewall.Protocol
	// HostIP is the address of the host; the zero Addr is any, 0.0.0.0 and :: any of their
	// family.
	HostIP netip.Addr
	Port   uint16 // of the host
	To     uint16 // port of the service
}

// String is "8080:80/tcp", "192.0.2.1:8080:80/tcp" or "[2001:db8::1]:8080:80/tcp".
func (p Published) String() string {
	text := fmt.Sprintf("%d:%d/%s", p.Port, p.To, p.Protocol)
	if !p.HostIP.IsValid() {
		return text
	}
	return net.JoinHostPort(p.HostIP.String(), text)
}

const wantPublished = "want [HOSTIP:]PORT[:SERVICEPORT][/PROTOCOL] as 8080, 8080:80/tcp or 192.0.2.1:8080:80: ports from 1 to 65535, tcp, udp or sctp"

// ParsePublished reads "8080", "8080:80/udp" or "192.0.2.1:8080"; an IPv6 address stands in
// brackets. To is 0 if the text names no port of the service. The error is ErrInvalid.
func ParsePublished(text string) (p Published, err error) {
	bad := invalid("publish", strconv.Quote(text), wantPublished)
	rest, protocol, has := strings.Cut(text, "/")
	if !has {
		protocol = "tcp"
	}
	if p.Protocol, err = parseProtocol(protocol); err != nil {
		return p, bad
	}
	host := ""
	if inner, is := strings.CutPrefix(rest, "["); is {
		if host, rest, has = strings.Cut(inner, "]:"); !has {
			return p, bad
		}
	} else if first, after, more := strings.Cut(rest, ":"); more && strings.Contains(first, ".") {
		host, rest = first, after
	}
	if host != "" {
		if p.HostIP, err = netip.ParseAddr(host); err != nil || p.HostIP.Zone() != "" {
			return p, bad
		}
		p.HostIP = p.HostIP.Unmap()
	}
	from, to, both := strings.Cut(rest, ":")
	ports := []*uint16{&p.Port}
	if both {
		ports = append(ports, &p.To)
	}
	for i, part := range []string{from, to}[:len(ports)] {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || n == 0 {
			return p, bad
		}
		*ports[i] = uint16(n)
	}
	return p, nil
}

// Publish sets Published. One without a port of the service leads to the port of the same
// number, or else to the only one of its protocol. The error is ErrInvalid.
func (s *Service) Publish(all []Published) error {
	s.Published = nil
	for _, p := range all {
		if p.To == 0 {
			var of []Port
			for _, q := range s.Ports {
				if q.Protocol == p.Protocol {
					of = append(of, q)
				}
			}
			same := slices.IndexFunc(of, func(q Port) bool { return q.Port == p.Port })
			switch {
			case same >= 0:
				p.To = p.Port
			case len(of) == 1:
				p.To = of[0].Port
			default:
				return invalid("publish", fmt.Sprintf("%d/%s", p.Port, p.Protocol), fmt.Sprintf("leads to which of the service's %d %s ports? say %d:SERVICEPORT/%s", len(of), p.Protocol, p.Port, p.Protocol))
			}
		}
		s.Published = append(s.Published, p)
	}
	return nil
}

// checkPublished says which of Published cannot be.
func (s Service) checkPublished() error {
	if len(s.Published) > 0 && len(s.VIPs) == 0 {
		return invalid("publish", s.Published[0], "the service has no address, so nothing leads connections to its containers: leave out --vip none, or publish the containers' ports")
	}
	if len(s.Published) > maxPorts {
		return invalid("publish", len(s.Published), fmt.Sprintf("want at most %d ports", maxPorts))
	}
	for i, p := range s.Published {
		if !slices.ContainsFunc(s.Ports, func(q Port) bool { return q.Protocol == p.Protocol && q.Port == p.To }) {
			return invalid("publish", p, fmt.Sprintf("the service has no port %d/%s", p.To, p.Protocol))
		}
		if p.HostIP.IsValid() && p.HostIP.Is6() && p.HostIP.IsLoopback() {
			return invalid("publish", p, "packets for ::1 cannot leave the host; 127.0.0.1 can be published")
		}
		same := func(q Published) bool { return p.Protocol == q.Protocol && p.Port == q.Port && p.HostIP == q.HostIP }
		if slices.ContainsFunc(s.Published[:i], same) {
			return invalid("publish", p, "is given twice")
		}
	}
	return nil
}
