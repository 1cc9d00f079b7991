// Package firewall keeps the packet rules of networks and endpoints in
// nftables tables of our own. It is the only package that talks nf_tables.
package firewall
