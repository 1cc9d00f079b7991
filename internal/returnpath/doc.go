// Package returnpath has connections from outside, which another host of a network led here
// through the tunnel with the client's address, answered through that host: only its conntrack
// can put back the address that the client asked.
//
// A packet out of the tunnel whose source is not behind the tunnel tells by its MAC address
// which host sent it. The connection gets the mark of that host; a rule of the routing policy
// leads packets with the mark, which are the answers, to a table with one route: to that host.
package returnpath
