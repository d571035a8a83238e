// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The probe: per-flow TCP telemetry aggregated in the kernel, read by polling.
 *
 * Three raw tracepoints feed one map of flows and one of RTT histogram buckets. Nothing is sent to user space per
 * packet. The program counts and copies; what the numbers mean is decided in Rust.
 *
 * All three hooks run with the socket locked (tcp_probe is the first statement of tcp_rcv_established, the others fire
 * under the socket's own state changes), so two CPUs never update one flow at once and plain stores suffice.
 *
 * What is a sample: tcp_probe fires before the ACK is processed, so rack.rtt_us is the sample of an earlier ACK, and a
 * socket that only receives shows the same one for ever. `delivered` moves exactly when the scoreboard does, which is
 * when tcp_rack_advance() stores a new value; a value is taken once per move. Unlike srtt this is the round trip of the
 * segment sent last, without the time a delayed ACK waited for earlier ones.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "kernel.h"
#include "netdiag.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set by user space before loading; see src/ebpf/load.rs. */
const volatile __u8 cfg_loopback = 0;	  /* 1: take flows that never leave the host */
const volatile __u8 cfg_match_ports = 0;  /* 1: `ports` lists the local ports to take */
const volatile __u8 cfg_match_peers = 0;  /* 1: `peers` lists the remote networks to take */
const volatile __u32 cfg_netns = 0;	  /* not 0: take this network namespace only */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* address of struct sock */
	__type(value, struct nd_flow);
	__uint(max_entries, 65536);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct nd_bucket_key);
	__type(value, struct nd_bucket);
	__uint(max_entries, 262144);
} buckets SEC(".maps");

/* Final states of closed flows, so that the address of a struct sock can be reused at once. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
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
	__uint(max_entries, 1024);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nd_prefix);
	__type(value, __u8);
	__uint(max_entries, 1024);
} peers SEC(".maps");

static __always_inline struct nd_stats *this_cpu_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
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

	words[2] = bpf_htonl(0xffff);
	words[3] = ipv4;
}

/* Fills in who the flow is. Returns 0 for sockets that are not TCP over IP. */
static __always_inline int identify(struct nd_flow *flow, struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family == AF_INET) {
		map_ipv4(flow->laddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		map_ipv4(flow->raddr, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else if (family == AF_INET6) {
		BPF_CORE_READ_INTO(&flow->laddr, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&flow->raddr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return 0;
	}
	flow->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	flow->rport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	flow->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	return 1;
}

static __always_inline int wanted(const struct nd_flow *flow)
{
	if (cfg_netns && flow->netns != cfg_netns)
		return 0;
	if (!cfg_loopback && (is_loopback(flow->raddr) || is_loopback(flow->laddr) ||
			      same_address(flow->laddr, flow->raddr)))
		return 0;
	if (cfg_match_ports) {
		__u16 port = flow->lport;

		if (!bpf_map_lookup_elem(&ports, &port))
			return 0;
	}
	if (cfg_match_peers) {
		struct nd_prefix peer = { .bits = 128 };
		__u8 *take;

		__builtin_memcpy(peer.addr, flow->raddr, sizeof(peer.addr));
		take = bpf_map_lookup_elem(&peers, &peer);
		if (!take || !*take)
			return 0;
	}
	return 1;
}

/* Copies the kernel's cumulative counters. */
static __always_inline void copy_counters(struct nd_flow *flow, struct tcp_sock *tp)
{
	flow->bytes_acked = BPF_CORE_READ(tp, bytes_acked);
	flow->segs_out = BPF_CORE_READ(tp, segs_out);
	flow->total_retrans = BPF_CORE_READ(tp, total_retrans);
	flow->srtt_us = BPF_CORE_READ(tp, srtt_us);
	flow->mdev_us = BPF_CORE_READ(tp, mdev_us);
	flow->cwnd = BPF_CORE_READ(tp, snd_cwnd);
}

/* Starts tracking a socket, unless it is filtered out or the map is full. */
static __noinline struct nd_flow *track(struct sock *sk, int opened)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	__u64 key = (__u64)sk;
	struct nd_flow flow = {};
	struct nd_stats *mine;

	if (!identify(&flow, sk) || !wanted(&flow))
		return NULL;
	mine = this_cpu_stats();
	if (!mine)
		return NULL;
	flow.id = ((__u64)bpf_get_smp_processor_id() << 48) | ++mine->next_id;
	flow.opened = opened;
	flow.delivered = BPF_CORE_READ(tp, delivered);
	copy_counters(&flow, tp);
	if (bpf_map_update_elem(&flows, &key, &flow, BPF_ANY)) {
		mine->lost_flows++;
		return NULL;
	}
	return bpf_map_lookup_elem(&flows, &key);
}

static __always_inline void count_rtt(const struct nd_flow *flow, __u32 rtt_us)
{
	struct nd_bucket_key key = { .id = flow->id, .bucket = nd_bucket_of(rtt_us) };
	struct nd_bucket *bucket = bpf_map_lookup_elem(&buckets, &key);

	if (bucket) {
		bucket->sum_us += rtt_us;
		bucket->count++;
	} else {
		struct nd_bucket first = { .sum_us = rtt_us, .count = 1 };

		if (bpf_map_update_elem(&buckets, &key, &first, BPF_NOEXIST)) {
			struct nd_stats *mine = this_cpu_stats();

			if (mine)
				mine->lost_rtt++;
		}
	}
}

/* Takes the RTT sample if there is a new one, and the counters. */
static __always_inline void observe(struct nd_flow *flow, struct tcp_sock *tp)
{
	__u32 delivered = BPF_CORE_READ(tp, delivered);

	if (delivered != flow->delivered) {
		__u32 rtt_us = BPF_CORE_READ(tp, rack.rtt_us);

		flow->delivered = delivered;
		if (rtt_us)
			count_rtt(flow, rtt_us);
	}
	copy_counters(flow, tp);
}

/* TP_PROTO(struct sock *sk, struct sk_buff *skb): entry of tcp_rcv_established(). */
SEC("raw_tp/tcp_probe")
int on_tcp_probe(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	__u64 key = (__u64)sk;
	struct nd_flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (flow)
		observe(flow, (struct tcp_sock *)sk);
	else
		track(sk, 0);
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
	__u64 key = (__u64)sk;
	struct nd_flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (flow)
		observe(flow, (struct tcp_sock *)sk);
	else
		track(sk, BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_SYN_SENT);
	return 0;
}

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate). */
SEC("raw_tp/inet_sock_set_state")
int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	int newstate = (int)ctx->args[2];
	__u64 key = (__u64)sk;
	struct nd_flow *flow;

	if (newstate == TCP_ESTABLISHED) {
		/* A bit-field before 5.6, and shared with SCTP and DCCP. */
		if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) != IPPROTO_TCP)
			return 0;
		flow = bpf_map_lookup_elem(&flows, &key);
		if (flow) /* known from a retransmitted SYN */
			observe(flow, (struct tcp_sock *)sk);
		else
			track(sk, 1);
		return 0;
	}
	if (newstate != TCP_CLOSE)
		return 0;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return 0;
	observe(flow, (struct tcp_sock *)sk);
	flow->closed = 1;
	/* User space polls; waking it per closed connection would only cost. */
	if (bpf_ringbuf_output(&closings, flow, sizeof(*flow), BPF_RB_NO_WAKEUP)) {
		struct nd_stats *mine = this_cpu_stats();

		if (mine)
			mine->lost_closings++;
	}
	bpf_map_delete_elem(&flows, &key);
	return 0;
}
