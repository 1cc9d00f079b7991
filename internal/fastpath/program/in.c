// SPDX-License-Identifier: Apache-2.0
//
// A tc program for ingress of the host's end of a veth, and of a VXLAN device: a packet of a
// flow that came through the rules a moment ago goes straight to where that one went. Every
// other packet gets a ticket, and goes the slow way; out.c looks at the tickets.
//
// It needs Linux 5.10. `make bpf` builds in.bin; internal/fastpath/maps.go has the same layout
// of keys and values.

#include "flow.h"

/* step does what a router does. */
static __always_inline int step(struct __sk_buff *skb, const struct key *k, const struct flow *f)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + ETH_HLEN + sizeof(struct iphdr) > end)
		return 0;
	__builtin_memcpy(data, f->frame_out, 12);
	if (k->family == 4) {
		struct iphdr *ip = data + ETH_HLEN;
		__u32 check = ip->check;

		check += bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
		return 1;
	}
	__u8 hops = *(__u8 *)(data + ETH_HLEN + 7) - 1;

	return !bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int same(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u32 *)(a + 4) == *(__u32 *)(b + 4) &&
	       *(__u32 *)(a + 8) == *(__u32 *)(b + 8);
}

/* is compares MAC addresses. */
static __always_inline int is(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

SEC("tc")
int fast_in(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex, len, at = GENERATION, until = SLOW_UNTIL;
	struct key k = {};
	struct flow f;
	__u64 *generation, *slow_until;
	struct link *link;
	__u8 frame[12];
	__u64 now;

	len = read_packet(skb, &k);
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
	skb->tc_index = DONE;
	if (f.kind == VETH) {
		if (!same(f.frame_in, f.frame_out) && !step(skb, &k, &f))
			return PASS;
		/* Not bpf_redirect_peer, which is 5 % faster: queues, filters and hooks that others
		 * have on the link's egress see the packet, as that of the plugin bandwidth. */
		return bpf_redirect(f.out, 0);
	}
	if (!step(skb, &k, &f))
		return PASS;
	bpf_set_hash(skb, f.ticket); /* so that it need not be computed for the port underneath */
	return bpf_redirect(f.out, 0);
}
