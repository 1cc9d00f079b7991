// Package foreign reads the packet rules of other owners of the host, by nf_tables and by
// the older iptables, and tells which of them drop what networks forward. It changes
// nothing, and is for the doctor: no verb of a plugin needs it.
package foreign
