// SPDX-License-Identifier: Apache-2.0
//
// A tc program for ingress of the host's end of a veth, and of a VXLAN device: a packet of a
// flow that came through the rules a moment ago goes straight to where that one went, or, by a
// VXLAN device, with the headers that the last one had there, to the uplink. Every other packet
// gets a ticket, and goes the slow way; out.c and uplink_out.c look at the tickets.
//
// It needs Linux 5.10. `make bpf` builds in.bin; internal/fastpath/maps.go has the same layout
// of keys and values.

#include "flow.h"
#include "wire.h"

/* is compares MAC addresses. */
static __always_inline int is(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

/* spans says that the network of a veth has containers on other hosts. */
static __always_inline int spans(const struct link *l)
{
	return !*(__u32 *)l->gateway && !*(__u16 *)(l->gateway + 4);
}

/* readdress writes the MAC addresses that a flow leaves with. */
static __always_inline int readdress(struct __sk_buff *skb, const struct flow *f)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + ETH_HLEN > end)
		return 0;
	__builtin_memcpy(data, f->frame_out, 12);
	return 1;
}

/* confirm notes that packets with the head that a wire has come through the host's rules for the
 * tunnel: one of them is here, as its ticket says, which the uplink's program gave it. */
static __always_inline void confirm(struct __sk_buff *skb, const struct key *k, const struct flow *f, __u32 len, __u64 now)
{
	struct wire w;

	if (f->kind != VETH || !find_wire(k, &w) || w.ticket != skb->hash || w.generation != f->generation || w.in != f->in ||
	    !same(w.frame_in, f->frame_in) || (w.arrived == f->arrived && len <= w.longest))
		return;
	w.out = f->out;
	arrive(k, &w, f, len, now);
	keep_wire(k, &w);
}

#define UNSENT 0
#define SENT 1
#define BROKEN 2

/* encapsulate puts the headers of the uplink before a frame, and does what a router does. IPv4 and
 * VXLAN are those of RFC 791 and 7348; ECN is as a tunnel of the kernel has it. The checksum in w
 * is that of what does not change. */
static __always_inline int encapsulate(struct __sk_buff *skb, const struct key *k, struct wire *w)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 total = skb->len + OUTER - ETH_HLEN, sum;
	__u8 tos;

	if (data + ETH_HLEN + sizeof(struct iphdr) > end || total > 0xffff)
		return UNSENT;
	tos = *(__u8 *)(data + ETH_HLEN + 1);
	tos = (k->family == 4 ? tos : tos >> 4) & ECN;
	if (tos == ECN)
		tos = 2; /* that the way was congested before is for the inner header to say */
	w->head[OUTER_TOS] |= tos;
	*outer16(w, OUTER_LEN) = bpf_htons(total);
	*outer16(w, OUTER_ID) = bpf_get_prandom_u32();
	*outer16(w, OUTER_UDP_LEN) = bpf_htons(total - sizeof(struct iphdr));
	sum = *outer16(w, OUTER_CHECK) + *outer16(w, OUTER_LEN) + *outer16(w, OUTER_ID) + bpf_htons(tos);
	sum = (sum & 0xffff) + (sum >> 16);
	*outer16(w, OUTER_CHECK) = ~(sum + (sum >> 16));
	if (bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, flags))
		return UNSENT; /* as what a container has put in a tunnel of its own */
	if (bpf_skb_store_bytes(skb, 0, w->head, OUTER + ETH_HLEN, 0) || !decrement(skb, OUTER, k))
		return BROKEN;
	return SENT;
}

SEC("tc")
int fast_in(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex, len, at = GENERATION, until = SLOW_UNTIL;
	struct key k = {};
	struct flow f;
	struct wire w;
	__u64 *generation, *slow_until;
	struct link *link;
	__u8 frame[12];
	__u64 now;

	skb->tc_index = SLOW; /* another host of this kernel may have left its own */
	len = read_packet(skb, 0, &k);
	if (!len)
		return PASS;
	link = bpf_map_lookup_elem(&links, &index);
	generation = bpf_map_lookup_elem(&states, &at);
	slow_until = bpf_map_lookup_elem(&states, &until);
	if (!link || !generation || !slow_until)
		return PASS;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + 12 > end)
		return PASS;
	__builtin_memcpy(frame, data, 12);
	if (link->kind == VETH && (!is(frame + 6, link->mac) || is(frame, link->gateway)))
		return PASS;
	k.network = link->network;
	now = bpf_ktime_get_ns();
	if (now < *slow_until)
		return PASS;
	if (link->kind == VETH && spans(link) && find_wire(&k, &w) && w.generation == *generation &&
	    w.in == index && same(w.frame_in, frame) && now - w.arrived <= SECOND && len <= w.longest) {
		skb->tc_index = DONE;
		switch (encapsulate(skb, &k, &w)) {
		case SENT:
			return bpf_redirect(w.out, 0);
		case BROKEN:
			return SHOT;
		}
		skb->tc_index = SLOW;
	}
	if (!find(&k, &f) || f.generation != *generation || f.in != index || !same(f.frame_in, frame)) {
		struct flow fresh = {
			.generation = *generation,
			.in = index,
			.ticket = bpf_get_prandom_u32(),
		};

		__builtin_memcpy(fresh.frame_in, frame, 12);
		keep(&k, &fresh);
		bpf_set_hash(skb, fresh.ticket);
		return PASS;
	}
	if (!f.arrived || now - f.arrived > SECOND || len > f.longest) {
		bpf_set_hash(skb, f.ticket);
		return PASS;
	}
	if (link->kind == TUNNEL)
		confirm(skb, &k, &f, len, now);
	skb->tc_index = DONE;
	if (f.kind == TUNNEL) {
		skb->tc_index = HALF;
		bpf_set_hash(skb, f.ticket); /* so that it need not be computed for the port of the uplink */
	}
	if ((f.kind == TUNNEL || !same(f.frame_in, f.frame_out)) && !(decrement(skb, 0, &k) && readdress(skb, &f)))
		return PASS;
	/* Not bpf_redirect_peer, which is 5 % faster: queues, filters and hooks that others have on
	 * the link's egress see the packet, as that of the plugin bandwidth. */
	return bpf_redirect(f.out, 0);
}
