// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The probe: per-flow TCP telemetry aggregated in the kernel, read by polling.
 *
 * Three raw tracepoints feed one table of flows. Nothing is sent to user space per packet. The program counts and
 * copies; what the numbers mean is decided in Rust.
 *
 * The path of an ACK is short because a server has millions of them, and on a host that does other work each finds the
 * caches cold: what counts is how many cache lines and pages it touches. It touches one line of the table, one of the
 * kernel's struct tcp_sock, and code. The table is an open hash table in an array map, which the JIT inlines (a hash
 * map's lookup alone costs more than all the rest here), and sockets of one slab lie in one page of it. Samples are
 * collected in the flow's line and counted in its histogram eight at a time. The kernel's cumulative counters are
 * copied on the first ACK after each poll, on retransmission and at the end, not on every ACK.
 *
 * All three hooks run with the socket locked (tcp_probe is the first statement of tcp_rcv_established, the others fire
 * under the socket's own state changes), so two CPUs never update one flow at once and plain stores suffice; only
 * claiming a free slot is atomic. User space reads without a lock: `version` tells it when samples were on the move.
 *
 * What is a sample: tcp_probe fires before the ACK is processed, so rack.rtt_us is the sample of an earlier ACK, and a
 * socket that only receives shows the same one for ever. tcp_rack_advance() stores the send time and the end of the
 * segment beside the round trip, so a sample is news if any of the three differs from the last one taken. Unlike srtt
 * this is the round trip of the segment sent last, without the time a delayed ACK waited for earlier ones.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "kernel.h"
#include "netdiag.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set by user space before loading; see src/ebpf.rs. */
const volatile __u32 cfg_netns = 0;	  /* not 0: take this network namespace only */
const volatile __u8 cfg_loopback = 0;	  /* 1: take flows that never leave the host */
const volatile __u8 cfg_match_ports = 0;  /* 1: `ports` lists the local ports to take */
const volatile __u8 cfg_match_peers = 0;  /* 1: `peers` lists the remote networks to take */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct nd_flow);
	__uint(max_entries, 1);
} flows SEC(".maps");

/* The same number of slots. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct nd_detail);
	__uint(max_entries, 1);
} details SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct nd_spilled_key);
	__type(value, struct nd_spilled);
	__uint(max_entries, 1);
} spilled SEC(".maps");

/* The details of closed flows, so that the address of a struct sock can be reused at once. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} closings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct nd_stats);
	__uint(max_entries, 1);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u16);
	__type(value, __u8);
	__uint(max_entries, 1);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nd_prefix);
	__type(value, __u8); /* 1: take, 0: leave */
	__uint(max_entries, 1);
} peers SEC(".maps");

/* Keeps what is rare out of the path of the ACKs. */
#define likely(condition) __builtin_expect(!!(condition), 1)

/* Slots that a flow may occupy. At half load one flow in 65,000 finds all of them taken. */
#define PROBES 16
/* The same for a socket that is passed over. It has a slot until a flow wants it. */
#define PROBES_PASSED_OVER 2

/*
 * Two instructions are filled in by user space before loading, see src/ebpf/object.rs. As operands in the code they cost
 * nothing; a constant in .rodata would be one more cache line on the path of every ACK.
 */

/* Slots of `flows`, a power of two, less one. */
static __always_inline __u32 slot_mask(void)
{
	register __u32 mask asm("r0");

	/* w0 = "mask" */
	asm volatile(".byte 0xb4, 0, 0, 0; .ascii \"mask\"" : "=r"(mask));
	return mask;
}

/*
 * The socket as a typed pointer, whose fields are read by plain loads that the kernel guards (bpf_rdonly_cast(), Linux
 * 6.2), or NULL where the kernel has no such thing. The verifier then drops the branch that is not taken.
 */
static __always_inline struct tcp_sock *typed(struct tcp_sock *tp)
{
	register struct tcp_sock *ret asm("r0");
	register struct tcp_sock *arg asm("r1") = tp;
	register __u64 type asm("r2") = bpf_core_type_id_kernel(struct tcp_sock);

	/* call kernel function "cast" */
	asm volatile(".byte 0x85, 0x20, 0, 0; .ascii \"cast\""
		     : "=r"(ret), "+r"(arg), "+r"(type)
		     :
		     : "r3", "r4", "r5");
	return ret;
}

static __always_inline struct nd_stats *this_cpu_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

/*
 * The index of the `probe`th slot in which a socket may be found. Sixteen slots are one page, and home to the sockets of
 * one 32 KiB slab, each larger than 2 KiB; which page is decided by Fibonacci hashing (the high bits of the product are
 * well mixed), the next ones to try by triangular steps.
 */
static __always_inline __u32 index_of(__u64 sk, __u32 probe)
{
	__u32 page = (__u32)(((sk >> 15) * 0x9E3779B97F4A7C15ULL) >> 32) + probe * (probe + 1) / 2;

	return (page << 4 | ((sk >> 11) & 15)) & slot_mask();
}

/* Where a socket is if not in its first slot: the index, plus one, or 0 for nowhere. */
static __noinline __u32 find_further(__u64 sk)
{
#pragma clang loop unroll(disable)
	for (__u32 probe = 1; probe < PROBES; probe++) {
		__u32 index = index_of(sk, probe);
		struct nd_flow *flow = bpf_map_lookup_elem(&flows, &index);

		if (flow && flow->sk == sk)
			return index + 1;
	}
	return 0;
}

/* The slot of a socket, and its index. */
static __always_inline struct nd_flow *find(__u64 sk, __u32 *index)
{
	struct nd_flow *flow;
	__u32 further;

	*index = index_of(sk, 0);
	flow = bpf_map_lookup_elem(&flows, index);
	if (likely(flow && flow->sk == sk))
		return flow;
	further = find_further(sk);
	if (!further)
		return NULL;
	*index = further - 1;
	return bpf_map_lookup_elem(&flows, index);
}

/* A free slot, now the socket's, and its index. */
static __always_inline struct nd_flow *claim(__u64 sk, __u32 probes, __u32 *index)
{
	struct nd_flow *flow;

#pragma clang loop unroll(disable)
	for (__u32 probe = 0; probe < probes; probe++) {
		*index = index_of(sk, probe);
		flow = bpf_map_lookup_elem(&flows, index);
		if (flow && !flow->sk && !__sync_val_compare_and_swap(&flow->sk, 0, sk))
			return flow;
	}
	return NULL;
}

/*
 * A slot of a socket that is passed over, now this one's, and its index. The other's ACKs may be under way on another
 * CPU: whoever finds `passed_over` cleared looks at `sk` again.
 */
static __always_inline struct nd_flow *take_over(__u64 sk, __u32 *index)
{
	struct nd_flow *flow;

#pragma clang loop unroll(disable)
	for (__u32 probe = 0; probe < PROBES; probe++) {
		__u64 owner;

		*index = index_of(sk, probe);
		flow = bpf_map_lookup_elem(&flows, index);
		if (!flow || !flow->passed_over)
			continue;
		owner = flow->sk;
		if (owner && __sync_val_compare_and_swap(&flow->sk, owner, sk) == owner)
			return flow;
	}
	return NULL;
}

/* Whether a slot that find() gave is a flow's, and still this socket's. */
static __always_inline int is_flow(const volatile struct nd_flow *flow, __u64 sk)
{
	return !flow->passed_over && flow->sk == sk;
}

static __always_inline int is_mapped(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline int is_loopback(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	if (is_mapped(addr))
		return addr[12] == 127;
	return !words[0] && !words[1] && !words[2] && words[3] == bpf_htonl(1);
}

static __always_inline int same_address(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline void map_ipv4(__u8 *addr, __be32 ipv4)
{
	__u32 *words = (__u32 *)addr;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = ipv4;
}

/* Who a flow is. */
struct identity {
	__u8 laddr[16];
	__u8 raddr[16];
	__u32 netns;
	__u16 lport;
	__u16 rport;
};

/* Returns 0 for sockets that are not TCP over IP. */
static __always_inline int identify(struct identity *who, struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family == AF_INET) {
		map_ipv4(who->laddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		map_ipv4(who->raddr, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else if (family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		BPF_CORE_READ_INTO(&who->laddr, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&who->raddr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return 0;
	}
	who->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	who->rport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	who->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	return 1;
}

static __always_inline int wanted(const struct identity *who)
{
	if (cfg_netns && who->netns != cfg_netns)
		return 0;
	if (!cfg_loopback && (is_loopback(who->raddr) || is_loopback(who->laddr) ||
			      same_address(who->laddr, who->raddr)))
		return 0;
	if (cfg_match_ports) {
		__u16 port = who->lport;

		if (!bpf_map_lookup_elem(&ports, &port))
			return 0;
	}
	if (cfg_match_peers) {
		struct nd_prefix peer = { .bits = 128 };
		__u8 *take;

		__builtin_memcpy(peer.addr, who->raddr, sizeof(peer.addr));
		take = bpf_map_lookup_elem(&peers, &peer);
		if (!take || !*take)
			return 0;
	}
	return 1;
}

/* Where each counter of a flow comes from in struct tcp_sock. */
#define COUNTERS(COPY)                                                                             \
	COPY(bytes_acked, bytes_acked)                                                             \
	COPY(segs_out, segs_out)                                                                   \
	COPY(total_retrans, total_retrans)                                                         \
	COPY(srtt_us, srtt_us)                                                                     \
	COPY(mdev_us, mdev_us)                                                                     \
	COPY(cwnd, snd_cwnd)
#define COPY_TYPED(counter, field) detail->counter = checked->field;
#define COPY_BY_HELPER(counter, field) detail->counter = BPF_CORE_READ(tp, field);

static __always_inline void copy_counters(struct nd_detail *detail, struct tcp_sock *tp)
{
	struct tcp_sock *checked = typed(tp);

	if (likely(checked)) {
		COUNTERS(COPY_TYPED)
	} else {
		COUNTERS(COPY_BY_HELPER)
	}
}

static __noinline int refresh(struct nd_flow *flow, __u32 index, struct tcp_sock *tp)
{
	struct nd_detail *detail = bpf_map_lookup_elem(&details, &index);

	if (!flow || !detail)
		return 0;
	flow->stale = 0;
	copy_counters(detail, tp);
	return 0;
}

struct sample {
	__u64 mstamp;
	__u32 rtt_us;
	__u32 end_seq;
};

static __noinline int copy_rack(struct sample *sample, struct tcp_sock *tp)
{
	sample->mstamp = BPF_CORE_READ(tp, rack.mstamp);
	sample->rtt_us = BPF_CORE_READ(tp, rack.rtt_us);
	sample->end_seq = BPF_CORE_READ(tp, rack.end_seq);
	return 0;
}

static __always_inline void read_rack(struct sample *sample, struct tcp_sock *tp)
{
	struct tcp_sock *checked = typed(tp);

	if (likely(checked)) {
		sample->mstamp = checked->rack.mstamp;
		sample->rtt_us = checked->rack.rtt_us;
		sample->end_seq = checked->rack.end_seq;
	} else {
		copy_rack(sample, tp);
	}
}

/* Starts tracking a socket, unless it is filtered out or there is no room. */
static __noinline int track(struct sock *sk, int opened)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct identity who = {};
	struct nd_detail *detail;
	struct sample sample;
	struct nd_stats *mine;
	struct nd_flow *flow;
	__u32 index;
	__u64 id;

	if (!identify(&who, sk) || !wanted(&who)) {
		flow = claim((__u64)sk, PROBES_PASSED_OVER, &index);
		if (flow)
			flow->passed_over = 1;
		return 0;
	}
	mine = this_cpu_stats();
	if (!mine)
		return 0;
	flow = claim((__u64)sk, PROBES, &index);
	if (!flow)
		flow = take_over((__u64)sk, &index);
	if (!flow) {
		mine->lost_flows++;
		return 0;
	}
	detail = bpf_map_lookup_elem(&details, &index);
	if (!detail)
		return 0;
	/* What the socket shows now may be old; the next change is the first sample. */
	read_rack(&sample, tp);
	flow->rack_mstamp = sample.mstamp;
	flow->rack_end_seq = sample.end_seq;
	flow->rack_rtt_us = sample.rtt_us;
	flow->stale = 0;
	flow->passed_over = 0;
	flow->pending = 0;
	__builtin_memset(flow->samples, 0, sizeof(flow->samples));
	__builtin_memset(detail, 0, sizeof(*detail));
	detail->opened = opened;
	detail->netns = who.netns;
	detail->lport = who.lport;
	detail->rport = who.rport;
	__builtin_memcpy(detail->laddr, who.laddr, sizeof(detail->laddr));
	__builtin_memcpy(detail->raddr, who.raddr, sizeof(detail->raddr));
	copy_counters(detail, tp);
	/* An interrupt may track another socket in between, so the number is drawn at once. */
	id = ((__u64)bpf_get_smp_processor_id() << 48) | (__sync_fetch_and_add(&mine->next_id, 1) + 1);
	/* From here on user space may read it: an exchange is a full barrier. */
	__sync_lock_test_and_set(&detail->id, id);
	return 0;
}

/* Moves an octave of a flow's histogram to `spilled`. */
static __noinline int spill(struct nd_detail *detail, __u32 place)
{
	struct nd_spilled_key key = {};
	struct nd_spilled *spilt, first = {};
	struct nd_octave *octave;

	if (!detail || place >= ND_OCTAVES)
		return 0;
	octave = &detail->octaves[place];
	key.id = detail->id;
	key.octave = detail->held[place] - 1;
	spilt = bpf_map_lookup_elem(&spilled, &key);
	if (!spilt) {
		bpf_map_update_elem(&spilled, &key, &first, BPF_NOEXIST);
		spilt = bpf_map_lookup_elem(&spilled, &key);
	}
	for (__u32 i = 0; i < 1 << ND_SUB_BITS; i++) {
		if (spilt) {
			spilt->counts[i] += octave->counts[i];
		} else if (octave->counts[i]) {
			struct nd_stats *mine = this_cpu_stats();

			if (mine)
				mine->lost_rtt += octave->counts[i];
		}
		octave->counts[i] = 0;
	}
	return 0;
}

static __always_inline void count_rtt(struct nd_detail *detail, __u32 rtt_us)
{
	__u32 bucket = nd_bucket_of(rtt_us);
	__u32 octave = bucket >> ND_SUB_BITS, place = octave & (ND_OCTAVES - 1);
	__u16 *count = &detail->octaves[place].counts[bucket & ((1 << ND_SUB_BITS) - 1)];

	detail->rtt_sum_us += rtt_us;
	detail->rtt_count++;
	if (detail->held[place] != octave + 1 || *count == 0xffff) {
		if (detail->held[place])
			spill(detail, place);
		detail->held[place] = octave + 1;
	}
	++*count;
}

/* Adds one, and is a full barrier on every architecture because the old value is asked for. */
static __always_inline void step(__u32 *version)
{
	__u32 before = __sync_fetch_and_add(version, 1);

	asm volatile("" : : "r"(before));
}

/* Counts the pending samples. */
static __noinline int count_pending(struct nd_flow *flow, __u32 index)
{
	struct nd_detail *detail = bpf_map_lookup_elem(&details, &index);

	if (!flow || !detail)
		return 0;
	step(&flow->version);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < ND_PENDING; i++) {
		__u32 sample = flow->samples[i];

		if (!sample)
			break;
		count_rtt(detail, sample & ~ND_TAKEN);
		flow->samples[i] = 0;
	}
	flow->pending = 0;
	step(&flow->version);
	return 0;
}

/* Gives a slot back. One of a socket that is passed over may be a flow's meanwhile, and is then left to it. */
static __noinline int release(struct nd_flow *flow, __u32 index, __u64 sk)
{
	struct nd_detail *detail = bpf_map_lookup_elem(&details, &index);

	if (!flow || !detail)
		return 0;
	if (!is_flow(flow, sk)) {
		flow->passed_over = 0;
		__sync_val_compare_and_swap(&flow->sk, sk, 0);
		return 0;
	}
	/* User space may not take what comes next for this flow, so the order matters: exchanges are full barriers. */
	__sync_lock_test_and_set(&detail->id, 0);
	__sync_lock_test_and_set(&flow->sk, 0);
	return 0;
}

/*
 * Whether the flow in a slot is the connection that the socket is now. A program that would interrupt itself on one CPU
 * is not run, so that a close can be missed and the address of the struct sock be somebody else's meanwhile.
 */
static __noinline int is_same(struct sock *sk, __u32 index)
{
	struct nd_detail *detail = bpf_map_lookup_elem(&details, &index);
	struct identity who = {};

	return detail && identify(&who, sk) && who.lport == detail->lport && who.rport == detail->rport &&
	       who.netns == detail->netns && same_address(who.laddr, detail->laddr) &&
	       same_address(who.raddr, detail->raddr);
}

/* Takes the RTT sample if there is a new one. */
static __always_inline void take_sample(struct nd_flow *flow, __u32 index, struct tcp_sock *tp)
{
	struct sample sample;
	__u32 pending;

	read_rack(&sample, tp);
	if (sample.end_seq == flow->rack_end_seq && sample.rtt_us == flow->rack_rtt_us &&
	    sample.mstamp == flow->rack_mstamp)
		return;
	flow->rack_end_seq = sample.end_seq;
	flow->rack_rtt_us = sample.rtt_us;
	flow->rack_mstamp = sample.mstamp;
	pending = flow->pending & (ND_PENDING - 1);
	flow->samples[pending] = sample.rtt_us | ND_TAKEN;
	flow->pending = ++pending;
	if (!likely(pending != ND_PENDING))
		count_pending(flow, index);
}

/* TP_PROTO(struct sock *sk, struct sk_buff *skb): entry of tcp_rcv_established(). */
SEC("raw_tp/tcp_probe")
int on_tcp_probe(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct nd_flow *flow;
	__u32 index;

	flow = find((__u64)sk, &index);
	if (!likely(flow))
		return track(sk, 0);
	if (!is_flow(flow, (__u64)sk))
		return 0;
	take_sample(flow, index, tp);
	if (!likely(!flow->stale))
		return refresh(flow, index, tp);
	return 0;
}

/*
 * TP_PROTO(const struct sock *sk, const struct sk_buff *skb[, int err]): total_retrans already counts the segments.
 * A SYN that is lost is the link's loss as well, so a socket that still opens is tracked from here, and from zero.
 * (A lost SYN-ACK has no socket yet; its count reaches total_retrans when the handshake completes.)
 */
SEC("raw_tp/tcp_retransmit_skb")
int on_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct nd_flow *flow;
	__u32 index;

	flow = find((__u64)sk, &index);
	if (!flow)
		return track(sk, BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_SYN_SENT);
	if (is_flow(flow, (__u64)sk))
		return refresh(flow, index, (struct tcp_sock *)sk);
	return 0;
}

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate). */
SEC("raw_tp/inet_sock_set_state")
int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	int newstate = (int)ctx->args[2];
	struct nd_detail *detail;
	struct nd_flow *flow;
	__u32 index;

	if (newstate == TCP_ESTABLISHED) {
		/* A bit-field before 5.6, and shared with SCTP and DCCP. */
		if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) != IPPROTO_TCP)
			return 0;
		flow = find((__u64)sk, &index);
		if (flow && is_flow(flow, (__u64)sk) && is_same(sk, index)) /* from a retransmitted SYN on */
			return 0;
		if (flow)
			release(flow, index, (__u64)sk);
		return track(sk, 1);
	}
	if (newstate != TCP_CLOSE)
		return 0;
	flow = find((__u64)sk, &index);
	if (!flow)
		return 0;
	detail = bpf_map_lookup_elem(&details, &index);
	if (detail && is_flow(flow, (__u64)sk)) {
		take_sample(flow, index, (struct tcp_sock *)sk);
		count_pending(flow, index);
		copy_counters(detail, (struct tcp_sock *)sk);
		detail->closed = 1;
		/* User space polls; waking it per closed connection would only cost. */
		if (bpf_ringbuf_output(&closings, detail, sizeof(*detail), BPF_RB_NO_WAKEUP)) {
			struct nd_stats *mine = this_cpu_stats();

			if (mine)
				mine->lost_closings++;
		}
	}
	release(flow, index, (__u64)sk);
	return 0;
}
