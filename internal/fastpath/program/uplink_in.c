// SPDX-License-Identifier: Apache-2.0
//
// A tc program for ingress of the link by which the packets of VXLAN devices come: one of a flow
// that came through the rules a moment ago, and in the same headers, goes without them straight
// to the container's link. Every other packet gets a ticket that is of its flow and of its headers,
// and goes the slow way, where in.c at the VXLAN device looks for it.
//
// It needs Linux 6.6. `make bpf` builds uplink_in.bin.

#include "flow.h"
#include "wire.h"

#define DECAP_L3_IPV6 (1ULL << 8) /* BPF_F_ADJ_ROOM_DECAP_L3_IPV6, of Linux 6.3 */

/* alike says that a packet has the headers that one had before it. */
static __always_inline int alike(struct wire *w, struct wire *have)
{
	return *outer32(w, OUTER_FROM) == *outer32(have, OUTER_FROM) && *outer32(w, OUTER_TO) == *outer32(have, OUTER_TO) &&
	       *outer32(w, OUTER_PORTS) == *outer32(have, OUTER_PORTS) && *outer32(w, OUTER_VNI) == *outer32(have, OUTER_VNI);
}

/* decapsulate takes the headers of the uplink away, and with them, of the checksums that a device
 * may have verified, that of the UDP header: there is none. */
static __always_inline int decapsulate(struct __sk_buff *skb, const struct key *k, const struct wire *w)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	if (k->family == 6)
		flags |= DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(__s32)OUTER, BPF_ADJ_ROOM_MAC, flags))
		return 0;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return !bpf_skb_store_bytes(skb, 0, w->inner, ETH_HLEN, 0) && decrement(skb, 0, k);
}

/* begin keeps the head of a packet of a flow that in.c knows. */
static __always_inline int begin(const struct key *k, const struct tunnel *t, __u64 generation, struct wire *w)
{
	struct flow f;

	if (!find(k, &f) || f.generation != generation || f.in != t->index || !same(f.frame_in, w->frame_in))
		return 0;
	w->generation = generation;
	w->ticket = bpf_get_prandom_u32();
	w->in = t->index;
	keep_wire(k, w);
	return 1;
}

SEC("tc")
int fast_uplink_in(struct __sk_buff *skb)
{
	__u32 len, at = GENERATION, until = SLOW_UNTIL;
	__u64 *generation, *slow_until, now;
	struct wire w = {}, have;
	struct tunnel *t;
	struct key k = {};

	if (skb->pkt_type != PACKET_HOST)
		return PASS;
	t = read_outer(skb, &w);
	if (!t)
		return PASS;
	len = read_packet(skb, OUTER, &k);
	generation = bpf_map_lookup_elem(&states, &at);
	slow_until = bpf_map_lookup_elem(&states, &until);
	now = bpf_ktime_get_ns();
	if (!len || !generation || !slow_until || now < *slow_until)
		return PASS;
	k.network = t->network;
	if (bpf_skb_load_bytes(skb, OUTER, w.frame_in, 12))
		return PASS;
	if (!find_wire(&k, &have) || !alike(&w, &have) || have.generation != *generation || have.in != t->index ||
	    !same(have.frame_in, w.frame_in)) {
		if (begin(&k, t, *generation, &w))
			bpf_set_hash(skb, w.ticket);
		return PASS;
	}
	/* By the device go packets that were joined, as there the kernel forgets that they were in a
	 * tunnel, those that the network marked for congestion, and all between them, so that none
	 * overtakes another. */
	if ((skb->gso_size || (w.head[OUTER_TOS] & ECN) == ECN) && now - have.cut > SECOND / 2) {
		have.cut = now;
		keep_wire(&k, &have);
	}
	if (now - have.arrived > SECOND || len > have.longest || now - have.cut <= SECOND || *outer16(&w, OUTER_UDP_CHECK)) {
		bpf_set_hash(skb, have.ticket);
		return PASS;
	}
	if (!decapsulate(skb, &k, &have))
		return SHOT;
	skb->tc_index = DONE;
	return bpf_redirect(have.out, 0);
}
