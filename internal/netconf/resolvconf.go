package netconf

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
)

// maxResolvConf bounds how much of a resolver file is read, in bytes.
const maxResolvConf = 64 << 10

// readResolvConf reads a file of the form of resolv.conf(5).
func readResolvConf(path string) (model.DNS, error) {
	var dns model.DNS
	f, err := plain.Open(path)
	if err != nil {
		return dns, err
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxResolvConf))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = append(dns.Search, fields[1:]...)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	return dns, errors.Join(lines.Err(), f.Close())
}
