// Package state keeps what libnet remembers between two calls: one small JSON
// file per network, attachment, sandbox and guard of a bridge below one directory.
//
// The directory lives on a tmpfs (default /run/libnet): nothing in it has to
// survive a power cut, so nothing is synced. Every file is replaced as a whole
// by a rename, so a reader sees the old record or the new one, never half of
// either. The layout is
//
//	networks/<network>/network.json
//	networks/<network>/endpoints/<containerID>:<ifname>.json
//	networks/<network>/lock
//	networks/<network>/hosts
//	bridges/<bridge>/<network>:<id>.json
//	sandboxes/<id>.json
//	overlay/<network>.json
//	ports/<containerID>.json
//	ports/lock
//	addresses
//	services/<network>/<name selected>/<service>/service.json
//
// bridges/ has what each network asks of a bridge, ports/ which attachments of a
// container wait for ports, and addresses which were given before, and on which bridges
// all that were given are known. overlay/ is
// ln-agent's: which hosts a network spans. Its content is libnet's. A second
// directory of this layout, portmap/ below the first, has what portmap-ln publishes.
//
// A colon separates container ID and interface name because neither may hold
// one (CNI spec 1.1.0, parameters), so two attachments never share a file.
package state
