// Package ipamstore leases IP addresses of one machine out of pools kept in
// plain files.
//
// A pool is a directory, <data dir>/<network>, laid out as the reference
// host-local plugin lays it out: one file per leased address, named by the
// address and holding "<container ID>\r\n<interface>", one last_reserved_ip.N
// per range set, and a file "lock" that every writer locks with flock(2).
// host-local and this package may take turns on one directory.
//
// The lease files are the truth. Beside them, in <data dir>/.libnet/<network>,
// lies an index (owner to addresses, and a bitmap of what is taken) so that
// the cost of an operation does not grow with the number of leases. It is
// rebuilt from the lease files whenever it may be out of date: after a crash,
// or after another program changed the directory.
//
// Containers do not survive a reboot, so by default the first Apply of a boot
// removes the leases of earlier ones; see RebootPolicy. A lease is removed only
// if it is proven to be old: the index of an earlier boot lists the very file,
// or the file was last written before the machine started. A directory that
// host-local alone has written in this boot is honoured whole.
//
// The modification time of the pool's directory is the store's: it is set after
// each change, so that a change by another program shows.
//
// Every method takes the lock, does its work in one critical section and
// keeps nothing in memory; a Store may be used by many goroutines and many
// processes at once.
package ipamstore
