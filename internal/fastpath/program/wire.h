// SPDX-License-Identifier: Apache-2.0
//
// The headers around the frames of a VXLAN device, IPv4 without options: how a flow's packets
// look on the uplink.

#define OUTER (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) + 8)

/* where in them */
#define OUTER_TOS (ETH_HLEN + 1)
#define OUTER_LEN (ETH_HLEN + 2)
#define OUTER_ID (ETH_HLEN + 4)
#define OUTER_CHECK (ETH_HLEN + 10)
#define OUTER_FROM (ETH_HLEN + 12)
#define OUTER_TO (ETH_HLEN + 16)
#define OUTER_PORTS (ETH_HLEN + 20)
#define OUTER_UDP_LEN (ETH_HLEN + 24)
#define OUTER_UDP_CHECK (ETH_HLEN + 26)
#define OUTER_VXLAN (ETH_HLEN + 28)
#define OUTER_VNI (ETH_HLEN + 32)

#define ECN 3

/* tunnel is a VXLAN device, by what its packets have on the uplink, as it stands there. */
struct tunnel_key {
	__u32 vni;
	__u16 port, unused;
};

struct tunnel {
	__u32 network, index; /* as in links */
	__u32 uplink;         /* that has programs; 0: none */
	__u32 other;          /* the uplink, if it has none, too: for those that compare */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct tunnel_key);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

/* wire is how one direction of a flow goes on the uplink: all that it takes to send it there, or
 * to take it from there, without a look at the flow. It has a sum, as a flow has. */
struct wire {
	__u64 generation; /* of rules, as that of the flow */
	__u64 arrived; /* when one last came through the rules, also those for the tunnel; 0: none */
	__u64 cut;     /* when one last came in that has to go by the device */
	__u32 ticket;  /* on the way out that of the flow; on the way in of packets with this head */
	__u32 in, out; /* links */
	__u16 longest; /* as of a flow */
	__u8 head[OUTER]; /* of one that came through; on the way out what is of one packet is 0 */
	__u8 inner[ETH_HLEN]; /* header of the frame that leaves, behind the others or alone */
	__u8 padding[2];
	__u8 frame_in[12]; /* as of a flow */
	__u8 unused[4];
	__u64 sum;
};

#define WIRE_WORDS (sizeof(struct wire) / 8 - 1)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct key);
	__type(value, struct wire);
} wires SEC(".maps");

static __always_inline __u64 sum_of_wire(const struct key *k, const struct wire *w)
{
	const __u64 *words = (const __u64 *)w;
	__u64 sum = sum_of_key(k);

	for (int i = 0; i < WIRE_WORDS; i++)
		sum += words[i] * (0x9e3779b97f4a7c15ULL * (2 * i + 1));
	return sum;
}

static __always_inline int find_wire(const struct key *k, struct wire *w)
{
	struct wire *found = bpf_map_lookup_elem(&wires, k);

	if (!found)
		return 0;
	*w = *found;
	return w->sum == sum_of_wire(k, w);
}

static __always_inline void keep_wire(const struct key *k, struct wire *w)
{
	w->sum = sum_of_wire(k, w);
	bpf_map_update_elem(&wires, k, w, BPF_ANY);
}

/* arrive notes that a packet with this head has come through the host's rules for the tunnel, and
 * when one of the flow came through the others, and in which frame. */
static __always_inline void arrive(const struct key *k, struct wire *w, const struct flow *f, __u32 len, __u64 now)
{
	__builtin_memcpy(w->inner, f->frame_out, 12);
	*(__u16 *)(w->inner + 12) = k->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (len > w->longest || now - w->arrived > SECOND)
		w->longest = len;
	w->arrived = f->arrived;
}

static __always_inline __u16 *outer16(struct wire *w, int at) { return (__u16 *)(w->head + at); }
static __always_inline __u32 *outer32(struct wire *w, int at) { return (__u32 *)(w->head + at); }

/* read_outer reads the headers of a packet of a tunnel; 0: it is none. */
static __always_inline struct tunnel *read_outer(struct __sk_buff *skb, struct wire *w)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tunnel_key key = {};
	struct tunnel *t;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if (data + OUTER > end && (bpf_skb_pull_data(skb, OUTER),
				   data = (void *)(long)skb->data, end = (void *)(long)skb->data_end, data + OUTER > end))
		return 0;
	struct iphdr *ip = data + ETH_HLEN;

	if (ip->protocol != IPPROTO_UDP || *(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff))
		return 0;
	key.port = *(__u16 *)(data + OUTER_PORTS + 2);
	key.vni = *(__u32 *)(data + OUTER_VNI);
	t = bpf_map_lookup_elem(&tunnels, &key);
	if (!t || t->uplink != skb->ifindex || bpf_skb_load_bytes(skb, 0, w->head, OUTER))
		return 0;
	return *outer32(w, OUTER_VXLAN) == bpf_htonl(0x08000000) ? t : 0;
}
