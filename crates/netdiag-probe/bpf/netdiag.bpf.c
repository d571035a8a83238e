// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The probe: per-flow TCP telemetry aggregated in the kernel, read by polling.
 *
 * Three raw tracepoints feed one table of flows. Nothing is sent to user space per packet. The program counts and
 * copies; what the numbers mean is decided in Rust.
 *
 * The path of an ACK is short because a server has millions of them: one array access (the flow table is an open hash
 * table in an array map, which the JIT inlines; a hash map's lookup alone costs more than all the rest here) and one
 * read of kernel memory. The histogram lives in the flow's own slot, as a direct-mapped cache of ND_WAYS buckets; a
 * bucket that must make room moves to `spilled`. The kernel's cumulative counters are copied on the first ACK after
 * each poll, on retransmission and at the end, not on every ACK.
 *
 * All three hooks run with the socket locked (tcp_probe is the first statement of tcp_rcv_established, the others fire
 * under the socket's own state changes), so two CPUs never update one flow at once and plain stores suffice; only
 * claiming a free slot is atomic.
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
const volatile __u32 cfg_slot_mask = 0;	  /* slots of `flows`, a power of two, less one */
const volatile __u32 cfg_netns = 0;	  /* not 0: take this network namespace only */
const volatile __u8 cfg_loopback = 0;	  /* 1: take flows that never leave the host */
const volatile __u8 cfg_match_ports = 0;  /* 1: `ports` lists the local ports to take */
const volatile __u8 cfg_match_peers = 0;  /* 1: `peers` lists the remote networks to take */

/* Counted up by user space at every poll. */
volatile __u32 poll_epoch = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct nd_flow);
	__uint(max_entries, 1);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct nd_bucket_key);
	__type(value, __u64); /* count */
	__uint(max_entries, 262144);
} spilled SEC(".maps");

/* Final states of closed flows, so that the address of a struct sock can be reused at once. */
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

/* Slots from its home on that a flow may occupy. At half load one flow in 65,000 finds all of them taken. */
#define PROBES 16
/* The same for a socket that is passed over: it may have what is free, but not crowd out flows. */
#define PROBES_PASSED_OVER 2

static __always_inline struct nd_stats *this_cpu_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

/* The `probe`th slot in which a socket may be found. Fibonacci hashing: the high bits of the product are well mixed. */
static __always_inline struct nd_flow *slot_of(__u64 sk, __u32 probe)
{
	__u32 index = ((__u32)((sk * 0x9E3779B97F4A7C15ULL) >> 32) + probe) & cfg_slot_mask;

	return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline struct nd_flow *find(__u64 sk)
{
	struct nd_flow *flow;

#pragma clang loop unroll(disable)
	for (__u32 probe = 0; probe < PROBES; probe++) {
		flow = slot_of(sk, probe);
		if (flow && flow->sk == sk)
			return flow;
	}
	return NULL;
}

static __always_inline struct nd_flow *claim(__u64 sk, __u32 probes)
{
	struct nd_flow *flow;

#pragma clang loop unroll(disable)
	for (__u32 probe = 0; probe < probes; probe++) {
		flow = slot_of(sk, probe);
		if (flow && !flow->sk && !__sync_val_compare_and_swap(&flow->sk, 0, sk))
			return flow;
	}
	return NULL;
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
	} else if (family == AF_INET6) {
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

static __always_inline void copy_counters(struct nd_flow *flow, struct tcp_sock *tp)
{
	flow->epoch = poll_epoch;
	flow->bytes_acked = BPF_CORE_READ(tp, bytes_acked);
	flow->segs_out = BPF_CORE_READ(tp, segs_out);
	flow->total_retrans = BPF_CORE_READ(tp, total_retrans);
	flow->srtt_us = BPF_CORE_READ(tp, srtt_us);
	flow->mdev_us = BPF_CORE_READ(tp, mdev_us);
	flow->cwnd = BPF_CORE_READ(tp, snd_cwnd);
}

/* The kernel's struct tcp_rack as far as its fields of interest may reach, read at once. */
struct rack_bytes {
	__u8 bytes[32];
};

#define RACK_FIELD(raw, type, field)                                                                \
	(*(type *)((raw).bytes + (bpf_core_field_offset(struct tcp_rack, field) & 15)))

struct sample {
	__u64 mstamp;
	__u32 rtt_us;
	__u32 end_seq;
};

static __always_inline void read_rack(struct sample *sample, struct tcp_sock *tp)
{
	struct rack_bytes raw = {};

	bpf_probe_read_kernel(&raw, sizeof(raw), __builtin_preserve_access_index(&tp->rack));
	sample->mstamp = RACK_FIELD(raw, __u64, mstamp);
	sample->rtt_us = RACK_FIELD(raw, __u32, rtt_us);
	sample->end_seq = RACK_FIELD(raw, __u32, end_seq);
}

/* Starts tracking a socket, unless it is filtered out or there is no room. */
static __noinline int track(struct sock *sk, int opened)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct identity who = {};
	struct sample sample;
	struct nd_stats *mine;
	struct nd_flow *flow;

	if (!identify(&who, sk) || !wanted(&who)) {
		flow = claim((__u64)sk, PROBES_PASSED_OVER);
		if (flow)
			flow->id = ND_PASSED_OVER;
		return 0;
	}
	mine = this_cpu_stats();
	if (!mine)
		return 0;
	flow = claim((__u64)sk, PROBES);
	if (!flow) {
		mine->lost_flows++;
		return 0;
	}
	/* What the socket shows now may be old; the next change is the first sample. */
	read_rack(&sample, tp);
	flow->rack_mstamp = sample.mstamp;
	flow->rack_end_seq = sample.end_seq;
	flow->rack_rtt_us = sample.rtt_us;
	flow->rtt_sum_us = 0;
	flow->rtt_count = 0;
	__builtin_memcpy(flow->laddr, who.laddr, sizeof(flow->laddr));
	__builtin_memcpy(flow->raddr, who.raddr, sizeof(flow->raddr));
	flow->netns = who.netns;
	flow->lport = who.lport;
	flow->rport = who.rport;
	flow->opened = opened;
	flow->closed = 0;
	__builtin_memset(flow->ways, 0, sizeof(flow->ways));
	copy_counters(flow, tp);
	/* From here on user space may read it. */
	barrier();
	flow->id = ((__u64)bpf_get_smp_processor_id() << 48) | ++mine->next_id;
	return 0;
}

static __noinline int spill(struct nd_flow *flow, struct nd_way *way)
{
	struct nd_bucket_key key = {};
	__u64 *count, first;

	if (!flow || !way)
		return 0;
	key.id = flow->id;
	key.bucket = way->bucket;
	first = way->count;
	count = bpf_map_lookup_elem(&spilled, &key);
	if (count) {
		*count += first;
	} else if (bpf_map_update_elem(&spilled, &key, &first, BPF_NOEXIST)) {
		struct nd_stats *mine = this_cpu_stats();

		if (mine)
			mine->lost_rtt += first;
	}
	return 0;
}

static __always_inline void count_rtt(struct nd_flow *flow, __u32 rtt_us)
{
	__u32 bucket = nd_bucket_of(rtt_us);
	struct nd_way *way = &flow->ways[bucket & (ND_WAYS - 1)];

	flow->rtt_sum_us += rtt_us;
	flow->rtt_count++;
	if (way->bucket != bucket || way->count == 0xffff) {
		if (way->count)
			spill(flow, way);
		way->bucket = bucket;
		way->count = 0;
	}
	way->count++;
}

/* Takes the RTT sample if there is a new one. */
static __always_inline void take_sample(struct nd_flow *flow, struct tcp_sock *tp)
{
	struct sample sample;

	read_rack(&sample, tp);
	if (sample.end_seq == flow->rack_end_seq && sample.rtt_us == flow->rack_rtt_us &&
	    sample.mstamp == flow->rack_mstamp)
		return;
	flow->rack_end_seq = sample.end_seq;
	flow->rack_rtt_us = sample.rtt_us;
	flow->rack_mstamp = sample.mstamp;
	count_rtt(flow, sample.rtt_us);
}

/* TP_PROTO(struct sock *sk, struct sk_buff *skb): entry of tcp_rcv_established(). */
SEC("raw_tp/tcp_probe")
int on_tcp_probe(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct nd_flow *flow = find((__u64)sk);

	if (!flow)
		return track(sk, 0);
	if (flow->id == ND_PASSED_OVER)
		return 0;
	take_sample(flow, tp);
	if (flow->epoch != poll_epoch)
		copy_counters(flow, tp);
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
	struct nd_flow *flow = find((__u64)sk);

	if (!flow)
		return track(sk, BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_SYN_SENT);
	if (flow->id != ND_PASSED_OVER)
		copy_counters(flow, (struct tcp_sock *)sk);
	return 0;
}

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate). */
SEC("raw_tp/inet_sock_set_state")
int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	int newstate = (int)ctx->args[2];
	struct nd_flow *flow;

	if (newstate == TCP_ESTABLISHED) {
		/* A bit-field before 5.6, and shared with SCTP and DCCP. */
		if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) != IPPROTO_TCP)
			return 0;
		if (find((__u64)sk)) /* from a retransmitted SYN on */
			return 0;
		return track(sk, 1);
	}
	if (newstate != TCP_CLOSE)
		return 0;
	flow = find((__u64)sk);
	if (!flow)
		return 0;
	if (flow->id != ND_PASSED_OVER) {
		take_sample(flow, (struct tcp_sock *)sk);
		copy_counters(flow, (struct tcp_sock *)sk);
		flow->closed = 1;
		/* User space polls; waking it per closed connection would only cost. */
		if (bpf_ringbuf_output(&closings, flow, sizeof(*flow), BPF_RB_NO_WAKEUP)) {
			struct nd_stats *mine = this_cpu_stats();

			if (mine)
				mine->lost_closings++;
		}
	}
	flow->id = 0;
	barrier();
	flow->sk = 0;
	return 0;
}
