package iptables

import "github.com/libnet-cni/libnet/internal/firewall"

// Words are the rules of n and e as commands of iptables and ip6tables, in chains of libnet's
// that are there already.
func Words(n firewall.Network, e firewall.Endpoint) []string {
	var all []string
	for _, f := range []family{ipv4, ipv6} {
		for _, r := range plan(f, n, e) {
			all = append(all, f.command()+" -t "+r.table+" "+r.line("-A"))
		}
	}
	return all
}
