// SPDX-License-Identifier: Apache-2.0
//
// A tc program for the host's end of a container's veth, on ingress: it answers DNS queries
// over UDP for names that its maps have, by turning the packet round. Every other packet goes
// on as it came.
//
// Linux 5.10 is enough. `make bpf` builds respond.bin; internal/responder/layout.go has the
// same layout of keys and values.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PASS (-1) /* TC_ACT_UNSPEC: the next filter, or on */
#define DROP 2    /* TC_ACT_SHOT */
#define REDIRECT 7 /* TC_ACT_REDIRECT */

#define NAME 120        /* bytes of a name, each label behind its length, without the final 0 */
#define LABELS 40       /* of a name: an address of IPv6 has 34 */
#define SLOTS 8         /* addresses of a page, or networks of a container */
#define LONGEST 512     /* bytes of UDP header and query: what bpf_csum_diff can add up */
#define HEAD 20         /* bytes of UDP header and DNS header, before the question */
#define QUESTION_END 4  /* type and class behind the name */
#define ROOM 1024       /* for UDP header, DNS header, question and answers */

#define TYPE_A 1
#define TYPE_PTR 12
#define TYPE_AAAA 28
#define TYPE_OPT 41
#define TYPE_ANY 255
#define CLASS_IN 1

/* OPAQUE keeps the compiler from leaving out a check of x that the verifier needs to see. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* kinds of keys */
#define KIND_LINK 1      /* the name is its index; the slot has the network and the container */
#define KIND_CONTAINER 2 /* the name is its hash; each slot has a network that it is on */
#define KIND_4 4
#define KIND_6 6
#define KIND_PTR 12
#define OF_HOST 0x80 /* beside KIND_4 and KIND_6: after the containers' names */

struct key {
	__u64 network;
	__u8 kind;
	__u8 page;
	__u8 unused[6];
	__u64 name[NAME / 8]; /* in lower case, then zeros */
};

struct slot {
	__u64 owner;
	__u64 addr[2];
};

/* value is what a key stands for: a page of addresses, or of KIND_PTR a name. Only the turn
 * and the pages of page 0 count. */
struct value {
	__u32 turn;
	__u16 pages;
	__u8 n; /* slots that are used; of KIND_PTR the bytes of the name */
	__u8 unused;
	union {
		struct slot slot[SLOTS];
		struct {
			__u64 owner;
			__u64 target[SLOTS * sizeof(struct slot) / 8 - 1];
		};
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct key);
	__type(value, struct value);
} names SEC(".maps");

/* packet is where the parts of a query are. */
struct packet {
	__u32 l4;     /* bytes before the UDP header */
	__u32 len;    /* of UDP header and message */
	__u32 end;    /* of the question, from the UDP header on */
	__u32 pseudo; /* sum of addresses, protocol and length */
	__u16 type;
	__u8 edns, dnssec;
	__u8 is4, partial;
};

/* what a query is counted as */
#define FOREIGN 0 /* it went on */
#define ANSWERED 1
#define NO_DATA 2 /* the name is known, and has no such record */
#define COUNTS 3

/* scratch is what a packet is worked on in, and what was counted on a CPU. The verifier does not follow what is in it: where
 * ways of the program meet again that differ in numbers only, these are read from here, or
 * each way would be followed to its end. */
struct scratch {
	struct key key;
	struct key other; /* of a link or a container: zeros but for kind and the first 8 bytes */
	__u64 counts[COUNTS];
	struct packet p;
	__u32 name;   /* length of the key's name */
	__u16 type;   /* of the records of the answer */
	__u16 known;  /* the name is known, though it may have no such record */
	__u32 stride; /* bytes of a record */
	__u8 udp[ROOM]; /* UDP header and message */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#define REREAD(x) (*(volatile typeof(x) *)&(x))

static __always_inline __u16 at16(const __u8 *b)
{
	return (__u16)b[0] << 8 | b[1];
}

static __always_inline void put16(__u8 *b, __u16 v)
{
	b[0] = v >> 8;
	b[1] = v;
}

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* add adds sums as those of bpf_csum_diff. */
static __always_inline __u32 add(__u32 a, __u32 b)
{
	a += b;
	return a + (a < b);
}

/* lower has the letters of 8 bytes in lower case. Lengths of labels are no letters. */
static __always_inline __u64 lower(__u64 b)
{
	const __u64 each = 0x0101010101010101;
	__u64 low = b & 0x7f * each;
	__u64 upper = ((low + (0x80 - 'A') * each) ^ (low + (0x7f - 'Z') * each)) & ~b & 0x80 * each;

	return b | upper >> 2;
}

/* first has the first n of 8 bytes, of which there may be none or more. It has no branches. */
static __always_inline __u64 first(__u64 b, __s64 n)
{
	__s64 less = n >> 63, over;

	OPAQUE(less);
	n &= ~less;
	over = n - 8;
	less = over >> 63;
	OPAQUE(less);
	n = 8 + (over & less);
	return b & (((__u64)1 << 4 * n << 4 * n) - 1);
}

/* measure sets the length of the name at from of the message; 0: it is none that could be
 * known. */
static __noinline void measure(struct scratch *s, __u32 from)
{
	__u32 at = from;

	s->name = 0;
	for (int i = 0; i < LABELS; i++) {
		__u8 c = s->udp[at & (ROOM - 1)];

		if (c == 0) {
			s->name = at - from;
			return;
		}
		at += 1 + c;
		if (c > 63 || at > from + NAME)
			return;
	}
}

/* read_name copies the name at from of the message into the key, in lower case, and returns
 * its length. It has few branches, as the verifier follows each. */
static __noinline __u32 read_name(struct scratch *s, __u32 from)
{
	__s64 left;

	measure(s, from);
	left = REREAD(s->name);
	for (int i = 0; i < NAME / 8; i++) {
		s->key.name[i] = first(lower(*(volatile __u64 *)&s->udp[from + 8 * i]), left);
		left -= 8;
	}
	return REREAD(s->name);
}

static __always_inline struct value *look(struct scratch *s, __u64 network, __u8 kind)
{
	s->key.network = network;
	s->key.kind = kind;
	return bpf_map_lookup_elem(&names, &s->key);
}

/* look_other looks for a link or a container. */
static __always_inline struct value *look_other(struct scratch *s, __u8 kind, __u64 which)
{
	s->other.kind = kind;
	s->other.name[0] = which;
	return bpf_map_lookup_elem(&names, &s->other);
}

/* find looks for the name of the key: on the network by which the query came, then on the
 * others of the container. The asker has these. */
static __noinline struct value *find(struct scratch *s, struct slot *asker, __u32 kind)
{
	__u64 network = asker->addr[0];
	struct value *v = look(s, network, kind), *c;

	if (v)
		return v;
	c = look_other(s, KIND_CONTAINER, asker->addr[1]);
	if (!c)
		return 0;
	for (int i = 0; i < SLOTS; i++) {
		if (i >= c->n)
			break;
		if (c->slot[i].addr[0] == network)
			continue;
		v = look(s, c->slot[i].addr[0], kind);
		if (v)
			return v;
	}
	return 0;
}

/* find_type looks for records of the name of the key. s->known says that the name is known;
 * the value is 0 if it has no such record. */
static __noinline struct value *find_type(struct scratch *s, struct slot *asker, __u32 of)
{
	__u16 type = REREAD(s->p.type);
	__u32 kind = type == TYPE_AAAA ? KIND_6 : KIND_4;
	struct value *v = find(s, asker, kind | of);

	s->known = 1;
	s->type = type == TYPE_AAAA ? TYPE_AAAA : TYPE_A;
	if (v) {
		if (type == TYPE_A || type == TYPE_AAAA || type == TYPE_ANY)
			return v;
		return 0;
	}
	v = find(s, asker, (kind ^ KIND_4 ^ KIND_6) | of);
	if (!v)
		s->known = 0;
	else if (type == TYPE_ANY) {
		s->type = TYPE_AAAA;
		return v;
	}
	return 0;
}

static __always_inline int is_tasks(const __u8 *n)
{
	return n[0] == 5 && n[1] == 't' && n[2] == 'a' && n[3] == 's' && n[4] == 'k' && n[5] == 's' &&
	       n[6] != 0;
}

static __always_inline int is_host(const __u8 *n)
{
	return (n[0] == 4 && n[1] == 'h' && n[2] == 'o' && n[3] == 's' && n[4] == 't') ||
	       (n[0] == 7 && n[1] == 'g' && n[2] == 'a' && n[3] == 't' && n[4] == 'e' &&
		n[5] == 'w' && n[6] == 'a' && n[7] == 'y');
}

/* find_all looks for what the query asks for, as find_type. */
static __always_inline struct value *find_all(struct scratch *s, struct slot *asker)
{
	struct value *v;

	if (REREAD(s->p.type) == TYPE_PTR) {
		v = find(s, asker, KIND_PTR);
		s->type = TYPE_PTR;
		s->known = 1;
		if (v)
			return v;
	}
	v = find_type(s, asker, 0);
	if (REREAD(s->known))
		return v;
	if (is_tasks((__u8 *)s->key.name)) {
		if (read_name(s, HEAD + 6))
			return find_type(s, asker, 0);
	} else if (is_host((__u8 *)s->key.name)) {
		return find_type(s, asker, OF_HOST);
	}
	return 0;
}

/* parse says whether the packet is a UDP datagram to port 53, whole and of a unicast
 * address, and where. The message is read by read_query. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct udphdr *udp;
	__u32 total;

	if (data + sizeof(*eth) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);

		p->l4 = sizeof(*eth) + sizeof(*ip);
		p->is4 = 1;
		if (data + sizeof(*eth) + sizeof(*ip) + sizeof(*udp) > end)
			return 0;
		if (ip->protocol != IPPROTO_UDP || *(__u8 *)ip != 0x45)
			return 0;
		udp = data + sizeof(*eth) + sizeof(*ip);
		if (udp->dest != bpf_htons(53) || ip->frag_off & bpf_htons(0x3fff))
			return 0;
		/* neither of 0/8, 127/8 nor multicast, class E and broadcast */
		__u8 src = ip->saddr, dst = ip->daddr;
		if (src == 0 || src == 127 || src >= 224 || dst == 0 || dst == 127 || dst >= 224)
			return 0;
		if (fold(bpf_csum_diff(0, 0, (void *)ip, sizeof(*ip), 0)) != 0xffff)
			return 0;
		total = bpf_ntohs(ip->tot_len);
		if (total < sizeof(*ip))
			return 0;
		total -= sizeof(*ip);
		p->pseudo = bpf_csum_diff(0, 0, (void *)&ip->saddr, 8, 0);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(*eth);

		p->l4 = sizeof(*eth) + sizeof(*ip);
		p->is4 = 0;
		if (data + sizeof(*eth) + sizeof(*ip) + sizeof(*udp) > end)
			return 0;
		if (ip->nexthdr != IPPROTO_UDP || ip->version != 6)
			return 0;
		udp = data + sizeof(*eth) + sizeof(*ip);
		if (udp->dest != bpf_htons(53))
			return 0;
		/* neither multicast nor :: nor ::1 */
		__u32 *src = ip->saddr.in6_u.u6_addr32, *dst = ip->daddr.in6_u.u6_addr32;
		if ((src[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
		    (dst[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
			return 0;
		if (!(src[0] | src[1] | src[2]) || !(dst[0] | dst[1] | dst[2]))
			return 0;
		total = bpf_ntohs(ip->payload_len);
		p->pseudo = bpf_csum_diff(0, 0, (void *)&ip->saddr, 32, 0);
	} else {
		return 0;
	}
	p->len = bpf_ntohs(udp->len);
	if (p->len != total || p->l4 + p->len > skb->len || udp->source == 0)
		return 0;
	if (eth->h_dest[0] & 1 || skb->vlan_present || skb->gso_segs > 1)
		return 0;
	return p->len > HEAD + 1 + QUESTION_END && p->len <= LONGEST;
}

/* pseudo is the sum of the pseudo header for a length. */
static __always_inline __u32 pseudo(const struct packet *p, __u32 len)
{
	return add(p->pseudo, bpf_htons(IPPROTO_UDP) + bpf_htons(len));
}

/* read_query reads the datagram and says whether its checksum is right. Of a sender on this
 * host it is mostly the sum of the pseudo header, which the device would complete. */
static __always_inline int read_query(struct __sk_buff *skb, struct scratch *s, struct packet *p)
{
	__u32 len = p->len, head, sum;

	OPAQUE(len);
	if (len < HEAD || len > LONGEST)
		return 0;
	if (bpf_skb_load_bytes(skb, p->l4, s->udp, len))
		return 0;
	*(volatile __u8 *)&s->udp[len & (ROOM - 1)] = 0;
	*(volatile __u8 *)&s->udp[(len + 1) & (ROOM - 1)] = 0;
	*(volatile __u8 *)&s->udp[(len + 2) & (ROOM - 1)] = 0;
	if (p->is4 && s->udp[6] == 0 && s->udp[7] == 0)
		return 1;
	head = pseudo(p, len);
	if (fold(head) == *(__u16 *)&s->udp[6]) { /* also if it is right as it is: one of 65536 */
		p->partial = 1;
		return 1;
	}
	sum = bpf_csum_diff(0, 0, (void *)s->udp, (len + 3) & (LONGEST + LONGEST - 4), head);
	return fold(sum) == 0xffff;
}

/* parse_query says whether the message is a query as every client sends it. */
static __always_inline int parse_query(struct scratch *s, struct packet *p)
{
	__u8 *m = s->udp;
	__u32 len = read_name(s, HEAD), end;

	OPAQUE(len);
	/* a standard query, neither a response nor truncated; one question and no record but OPT */
	if (m[10] & 0xfa || at16(m + 12) != 1 || at16(m + 14) || at16(m + 16) || at16(m + 18) > 1)
		return 0;
	if (len == 0 || len > NAME)
		return 0;
	end = HEAD + len + 1;
	m += end & 255;
	p->type = at16(m);
	if (at16(m + 2) != CLASS_IN)
		return 0;
	end += QUESTION_END;
	p->end = end;
	if (s->udp[19] == 0)
		return end == p->len;
	/* OPT: root, type, size of UDP, extended code, version, flags, length, data (RFC 6891) */
	if (m[4] || at16(m + 5) != TYPE_OPT || m[10])
		return 0;
	p->edns = 1;
	p->dnssec = m[11] & 0x80;
	return end + 11 + at16(m + 13) == p->len;
}

/* head_record writes a record without its data. */
static __always_inline void head_record(__u8 *r, __u16 type, __u16 size)
{
	put16(r, 0xc00c); /* the name of the question */
	put16(r + 2, type);
	put16(r + 4, CLASS_IN);
	put16(r + 6, 0); /* TTL */
	put16(r + 8, 0);
	put16(r + 10, size);
}

/* write_pointer writes the name that v has, and returns the end of the message. */
static __noinline __u32 write_pointer(struct scratch *s, struct value *v)
{
	__u32 at = REREAD(s->p.end) & 255, n = v->n & 127;
	__u8 *r = s->udp + at;

	for (int i = 0; i < NAME / 8; i++)
		*(__u64 *)&r[12 + 8 * i] = v->target[i];
	r[12 + n] = 0;
	head_record(r, TYPE_PTR, n + 1);
	return at + 12 + n + 1;
}

/* write_addresses writes those of a page of v, whose key s has, and returns the end of the
 * message. Which page it is, and which address comes first, changes each time. */
static __noinline __u32 write_addresses(struct scratch *s, struct value *v)
{
	__u32 at = REREAD(s->p.end) & 255, turn = v->turn, pages = v->pages, n, begin, size;
	struct value *page;

	__sync_fetch_and_add(&v->turn, 1);
	if (pages > 1) {
		s->key.page = turn % pages;
		turn /= pages;
		page = bpf_map_lookup_elem(&names, &s->key);
		if (page) /* else it went this moment */
			v = page;
	}
	n = v->n;
	begin = turn % (n ? n : 1);
	size = REREAD(s->type) == TYPE_A ? 4 : 16;
	s->stride = 12 + size;
	for (__u32 i = 0; i < SLOTS; i++) {
		__u8 *r = s->udp + (at & 511);
		__u32 of = begin + i;
		struct slot *slot;

		if (i >= n)
			break;
		if (of >= n)
			of -= n;
		slot = &v->slot[of & (SLOTS - 1)];
		head_record(r, REREAD(s->type), size);
		*(__u64 *)(r + 12) = slot->addr[0]; /* of IPv4 the rest is written over */
		*(__u64 *)(r + 20) = slot->addr[1];
		at += REREAD(s->stride);
	}
	n = REREAD(v->n);
	put16(s->udp + 14, n);
	return (REREAD(s->p.end) & 255) + n * (REREAD(s->stride) & 31);
}

/* write_answer writes the message and returns its end. */
static __always_inline __u32 write_answer(struct scratch *s, struct value *v)
{
	__u32 at = REREAD(s->p.end);

	s->udp[10] = 0x84 | (s->udp[10] & 1);    /* response, authoritative; recursion as desired */
	s->udp[11] = 0x80 | (s->udp[11] & 0x10); /* recursion available; checking disabled */
	if (v && REREAD(s->type) == TYPE_PTR) {
		put16(s->udp + 14, 1);
		at = write_pointer(s, v);
	} else if (v) {
		at = write_addresses(s, v);
	}
	if (REREAD(s->p.edns)) {
		__u8 *r = s->udp + (at & 511);

		r[0] = 0;
		put16(r + 1, TYPE_OPT);
		put16(r + 3, 1232);
		put16(r + 5, 0);
		put16(r + 7, REREAD(s->p.dnssec) ? 0x8000 : 0);
		put16(r + 9, 0);
		at += 11;
	}
	s->p.len = at;
	return REREAD(s->p.len);
}

/* turn_round makes the packet the answer, from the server that was asked. */
static __always_inline int turn_round(struct __sk_buff *skb, struct scratch *s, struct packet *p,
				      __u32 len)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 mac[12];
	__u16 port;
	__u32 sum;

	OPAQUE(len);
	if (len < HEAD || len > LONGEST)
		return PASS;
	port = *(__u16 *)&s->udp[0];
	*(__u16 *)&s->udp[0] = *(__u16 *)&s->udp[2];
	*(__u16 *)&s->udp[2] = port;
	*(__u16 *)&s->udp[4] = bpf_htons(len);
	if (p->partial) {
		*(__u16 *)&s->udp[6] = fold(pseudo(p, len));
	} else {
		*(__u16 *)&s->udp[6] = 0;
		*(volatile __u8 *)&s->udp[len & (ROOM - 1)] = 0;
		*(volatile __u8 *)&s->udp[(len + 1) & (ROOM - 1)] = 0;
		*(volatile __u8 *)&s->udp[(len + 2) & (ROOM - 1)] = 0;
		sum = ~fold(bpf_csum_diff(0, 0, (void *)s->udp, (len + 3) & (LONGEST + LONGEST - 4),
					  pseudo(p, len))) & 0xffff;
		*(__u16 *)&s->udp[6] = sum ? sum : 0xffff;
	}
	if (bpf_skb_change_tail(skb, p->l4 + len, 0))
		return PASS;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN + sizeof(struct iphdr) > end)
		return DROP;
	__builtin_memcpy(mac, data + 6, 6);
	__builtin_memcpy(mac + 6, data, 6);
	if (p->is4) {
		struct iphdr ip;

		__builtin_memcpy(&ip, data + ETH_HLEN, sizeof(ip));
		__u32 from = ip.saddr;
		ip.saddr = ip.daddr;
		ip.daddr = from;
		ip.tot_len = bpf_htons(sizeof(ip) + len);
		ip.ttl = 64;
		ip.check = 0;
		ip.check = ~fold(bpf_csum_diff(0, 0, (void *)&ip, sizeof(ip), 0));
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
			return DROP;
	} else {
		struct ipv6hdr ip;

		if (data + ETH_HLEN + sizeof(ip) > end)
			return DROP;
		__builtin_memcpy(&ip, data + ETH_HLEN, sizeof(ip));
		struct in6_addr from = ip.saddr;
		ip.saddr = ip.daddr;
		ip.daddr = from;
		ip.payload_len = bpf_htons(len);
		ip.hop_limit = 64;
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
			return DROP;
	}
	if (bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), BPF_F_RECOMPUTE_CSUM))
		return DROP;
	if (bpf_skb_store_bytes(skb, p->l4, s->udp, len, BPF_F_RECOMPUTE_CSUM))
		return DROP;
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int respond(struct __sk_buff *skb)
{
	__u32 zero = 0, index = skb->ifindex, len;
	struct packet p = {};
	struct scratch *s;
	struct value *link, *v;
	int verdict;

	if (!parse(skb, &p))
		return PASS;
	s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s)
		return PASS;
	link = look_other(s, KIND_LINK, index);
	if (!link)
		return PASS;
	s->p = p;
	s->key.page = 0;
	if (!read_query(skb, s, &s->p) || !parse_query(s, &s->p))
		return PASS;
	v = find_all(s, &link->slot[0]);
	if (!REREAD(s->known)) {
		s->counts[FOREIGN]++;
		return PASS;
	}
	len = write_answer(s, v);
	verdict = turn_round(skb, s, &s->p, len);
	if (verdict == REDIRECT)
		s->counts[v ? ANSWERED : NO_DATA]++;
	return verdict;
}
