// SPDX-License-Identifier: Apache-2.0
//
// A tc program for egress of the link by which the packets of VXLAN devices leave. One that has
// the ticket of its flow has come through the host's rules for the tunnel, too: for a second
// packets of the flow go straight here, with headers as this one has them.
//
// It needs Linux 6.6. `make bpf` builds uplink_out.bin.

#include "flow.h"
#include "wire.h"

/* rest is the checksum of the IP header without what differs from packet to packet. */
static __always_inline __u16 rest(struct wire *w)
{
	__u32 sum = 0;

	for (int at = ETH_HLEN; at < ETH_HLEN + sizeof(struct iphdr); at += 2)
		sum += *outer16(w, at);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

SEC("tc")
int fast_uplink_out(struct __sk_buff *skb)
{
	struct wire w = {}, have;
	struct tunnel *t;
	struct key k = {};
	struct flow f;
	__u32 len;
	__u64 now;

	if (skb->tc_index == DONE)
		return PASS;
	t = read_outer(skb, &w);
	if (!t)
		return PASS;
	len = read_packet(skb, OUTER, &k);
	if (!len)
		return PASS;
	k.network = t->network;
	if (!find(&k, &f) || f.ticket != skb->hash || f.kind != TUNNEL || f.out != t->index)
		return PASS;
	now = bpf_ktime_get_ns();
	if (find_wire(&k, &have) && have.ticket == f.ticket) {
		if (have.arrived == f.arrived && len <= have.longest)
			return PASS;
		w.arrived = have.arrived;
		w.longest = have.longest;
	}
	arrive(&k, &w, &f, len, now);
	w.generation = f.generation;
	w.ticket = f.ticket;
	w.in = f.in;
	w.out = skb->ifindex;
	__builtin_memcpy(w.frame_in, f.frame_in, 12);
	w.head[OUTER_TOS] &= ~ECN;
	*outer16(&w, OUTER_LEN) = *outer16(&w, OUTER_ID) = *outer16(&w, OUTER_CHECK) = 0;
	*outer16(&w, OUTER_UDP_LEN) = 0;
	*outer16(&w, OUTER_UDP_CHECK) = 0; /* none, as RFC 7348 would have it: the inner one stays */
	*outer16(&w, OUTER_CHECK) = rest(&w);
	keep_wire(&k, &w);
	return PASS;
}
