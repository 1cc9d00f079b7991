// SPDX-License-Identifier: Apache-2.0
//
// What the programs of the fast path share: maps, and how a packet is read.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PASS (-1) /* TC_ACT_UNSPEC: the next filter, or on */
#define SHOT 2    /* TC_ACT_SHOT */

#define SECOND 1000000000ULL

/* tc_index of a packet that goes the fast way, of one that does so as far as the VXLAN device,
 * and of every other */
#define DONE 0x6c6e
#define HALF 0x6c6f
#define SLOW 0

/* kinds of links */
#define VETH 1
#define TUNNEL 2

/* link is what a link is to the fast path: of which network, and whose. */
struct link {
	__u32 network; /* of the bridge: addresses are of one network only */
	__u16 kind;
	__u8 mac[6];     /* of the container: frames of another sender go the slow way */
	__u8 gateway[6]; /* frames to it leave the network; zeros: they may not */
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); /* index */
	__type(value, struct link);
} links SEC(".maps");

/* What states has. */
#define GENERATION 0 /* of rules: another one with each change of them */
#define SLOW_UNTIL 1 /* by bpf_ktime_get_ns: till then every packet goes the slow way */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
} states SEC(".maps");

/* key is one direction of a flow. */
struct key {
	__u32 network;
	__u16 protocol, family;
	__u64 from[2], to[2];
	__u32 ports; /* as they stand in the packet */
	__u32 unused;
};

/* flow is how one direction of a flow goes. Values are written whole and read whole: the
 * kernel may use the memory of one for another flow while it is being read, so the sum, which
 * has the key in it, tells whether all of it is of one flow. */
struct flow {
	__u64 generation; /* of rules, when ticket was given */
	__u64 arrived;    /* when a packet last came through the rules; 0: none has */
	__u32 in, out;    /* links */
	__u32 ticket;     /* hash of the packets that are on their way through the rules */
	__u16 kind;       /* of the link out */
	__u16 longest;    /* frame that has arrived; of one to be cut, its pieces */
	__u8 frame_in[12], frame_out[12]; /* MAC addresses, destination first */
	__u64 sum;
};

#define WORDS (sizeof(struct flow) / 8 - 1)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline __u64 mix(__u64 sum, __u64 word)
{
	sum ^= word;
	sum *= 0x9e3779b97f4a7c15ULL;
	return sum ^ sum >> 29;
}

/* sum_of_key is what the sums of values begin with. */
static __always_inline __u64 sum_of_key(const struct key *k)
{
	return k->from[1] ^ k->to[1] << 1 ^ (__u64)k->ports << 32 ^ k->network;
}

static __always_inline __u64 sum_of(const struct key *k, const struct flow *f)
{
	const __u64 *w = (const __u64 *)f;
	__u64 sum = sum_of_key(k);

	for (int i = 0; i < WORDS; i++)
		sum = mix(sum, w[i]);
	return sum;
}

/* find reads a flow; 0: there is none. */
static __always_inline int find(const struct key *k, struct flow *f)
{
	struct flow *found = bpf_map_lookup_elem(&flows, k);

	if (!found)
		return 0;
	*f = *found;
	return f->sum == sum_of(k, f);
}

static __always_inline void keep(const struct key *k, struct flow *f)
{
	f->sum = sum_of(k, f);
	bpf_map_update_elem(&flows, k, f, BPF_ANY);
}

/* read_packet fills the key and returns the length of the frame, which stands behind so many
 * bytes, or of the pieces that it will be cut to; 0: the packet is none of a flow. The beginning
 * and the end of a TCP connection are for conntrack alone to see. */
static __always_inline __u32 read_packet(struct __sk_buff *skb, __u32 behind, struct key *k)
{
	__u32 most = behind + ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct tcphdr), head;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *l4;

	if (skb->vlan_present)
		return 0;
	if (data + most > end) {
		bpf_skb_pull_data(skb, most);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	data += behind;
	struct ethhdr *eth = data;

	if (data + ETH_HLEN + sizeof(struct iphdr) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;

		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl < 2)
			return 0;
		k->protocol = ip->protocol;
		k->family = 4;
		k->from[1] = ip->saddr;
		k->to[1] = ip->daddr;
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end || ip->hop_limit < 2)
			return 0;
		k->protocol = ip->nexthdr;
		k->family = 6;
		__builtin_memcpy(k->from, &ip->saddr, 16);
		__builtin_memcpy(k->to, &ip->daddr, 16);
		l4 = ip + 1;
	} else {
		return 0;
	}
	if (k->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > end || tcp->syn || tcp->fin || tcp->rst)
			return 0;
		head = l4 - data + 4 * tcp->doff;
	} else {
		if (k->protocol != IPPROTO_UDP || l4 + sizeof(struct udphdr) > end)
			return 0;
		head = l4 - data + sizeof(struct udphdr);
	}
	k->ports = *(__u32 *)l4;
	return skb->gso_size ? head + skb->gso_size : skb->len - behind;
}

/* same compares the MAC addresses of two frames. */
static __always_inline int same(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u32 *)(a + 4) == *(__u32 *)(b + 4) &&
	       *(__u32 *)(a + 8) == *(__u32 *)(b + 8);
}

/* decrement is what a router does to TTL or hop limit of a frame that stands behind so many
 * bytes. */
static __always_inline int decrement(struct __sk_buff *skb, __u32 behind, const struct key *k)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + behind + ETH_HLEN + sizeof(struct iphdr) > end)
		return 0;
	if (k->family == 4) {
		struct iphdr *ip = data + behind + ETH_HLEN;
		__u32 check = ip->check;

		check += bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
		return 1;
	}
	__u8 hops = *(__u8 *)(data + behind + ETH_HLEN + 7) - 1;

	return !bpf_skb_store_bytes(skb, behind + ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM);
}
