// Package fastpath takes packets past the bridge, routing, conntrack and rules of the host: tc
// programs on the host's ends of veths, and on VXLAN devices, send packets of a flow to the
// link where the one before them arrived by the slow way.
//
// Each direction of a flow is judged for itself. A packet that goes the slow way is given a
// ticket (skb->hash) where it comes in. If it leaves, unchanged but for MAC addresses, by
// another link of the network, with its ticket, the host has let it through; for a second its
// flow goes straight from link to link. Then one packet goes the slow way again, so that
// conntrack, bridge and neighbours know that the flow lives, and so that what others changed
// counts. A change of our own rules counts at once: it makes a new generation, and flows of
// another generation go the slow way.
//
// Maps and programs are pinned in a bpffs, in a directory of the network namespace. Filters
// go with their links. A host that lost the pins goes the slow way within a second.
//
// It needs Linux 5.10 with BPF, a bpffs, and clsact.
package fastpath
