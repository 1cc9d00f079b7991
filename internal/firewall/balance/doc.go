// Package balance is the part of services in the kernel: two nftables tables, inet and
// bridge libnet-services, whose rules are constant. A service and its backends are
// elements. The tables are there while a service is, so that a host without services pays
// nothing for them.
package balance
