// Package firewall has the words in which rules of networks and endpoints are asked for,
// and the errors that refuse them. It is pure. Two packages put rules in place: nft, and
// iptables. Beside them conntrack ends connections, and foreign looks at the rules of
// other owners.
package firewall
