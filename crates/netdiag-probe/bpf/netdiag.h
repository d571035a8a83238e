/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The records that the BPF program and user space share. `src/ebpf/records.rs` mirrors them; the sizes are checked at
 * compile time on both sides.
 */
#ifndef NETDIAG_H
#define NETDIAG_H

#include <linux/types.h>

/*
 * Histogram buckets a flow holds itself, bucket b in way b mod ND_WAYS: one cache line. Neighbours never collide, so
 * RTTs within a factor of 1.4 of each other all have room.
 */
#define ND_WAYS 16

/* A bucket of the histogram and how often it was hit. */
struct nd_way {
	__u16 bucket; /* nd_bucket_of() */
	__u16 count;
};

/* The id of a socket that the filters leave out: remembered, so that its ACKs cost next to nothing. */
#define ND_PASSED_OVER (~0ULL)

/*
 * One slot of the flow table. What every ACK touches comes first, in one cache line. Counters are the kernel's own,
 * cumulative.
 */
struct nd_flow {
	__u64 sk;	       /* address of the struct sock; 0: the slot is free */
	__u64 id;	       /* unique for the life of the probe; 0: being filled; or ND_PASSED_OVER */
	__u64 rack_mstamp;     /* the last RTT sample taken: when its segment was sent, */
	__u32 rack_end_seq;    /* where that ended, */
	__u32 rack_rtt_us;     /* and the sample itself */
	__u64 rtt_sum_us;      /* of all samples */
	__u32 rtt_count;
	__u32 epoch;	       /* poll in which the counters below were copied */
	__u64 bytes_acked;
	__u32 segs_out;
	__u32 total_retrans;
	__u32 srtt_us;	       /* smoothed RTT << 3, as the kernel stores it */
	__u32 mdev_us;	       /* RTT variation << 2 */
	__u32 cwnd;
	__u32 netns;	       /* inode of the network namespace */
	__u8 laddr[16];	       /* IPv4 as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u16 lport;	       /* host order */
	__u16 rport;	       /* host order */
	__u8 opened;	       /* the probe saw the handshake complete */
	__u8 closed;
	__u8 pad[10];
	struct nd_way ways[ND_WAYS];
};
_Static_assert(sizeof(struct nd_flow) == 192, "struct nd_flow is shared with user space");

/* A histogram bucket that had to make room in its flow. */
struct nd_bucket_key {
	__u64 id;     /* nd_flow.id */
	__u32 bucket; /* nd_bucket_of() */
	__u32 pad;
};
_Static_assert(sizeof(struct nd_bucket_key) == 16, "struct nd_bucket_key is shared with user space");

/* Per-CPU bookkeeping: what there was no room for, and the source of flow ids. */
struct nd_stats {
	__u64 next_id;
	__u64 lost_flows;
	__u64 lost_rtt;
	__u64 lost_closings;
};
_Static_assert(sizeof(struct nd_stats) == 32, "struct nd_stats is shared with user space");

/* Key of the peer filter: a prefix of a 128-bit address. */
struct nd_prefix {
	__u32 bits;
	__u8 addr[16];
};
_Static_assert(sizeof(struct nd_prefix) == 20, "struct nd_prefix is shared with user space");

/* The log-linear buckets of `netdiag_telemetry::bucket_of`: 32 per power of two, up to 2^27 us. */
#define ND_SUB_BITS 5
#define ND_MAX_US ((1U << 27) - 1)

static __inline __attribute__((always_inline)) __u32 nd_bucket_of(__u32 us)
{
	__u32 exponent = ND_SUB_BITS, top;

	if (us > ND_MAX_US)
		us = ND_MAX_US;
	if (us < 1U << ND_SUB_BITS)
		return us;
	/* ilog2 by halves: BPF has no count-leading-zeros instruction. */
	top = us >> ND_SUB_BITS;
	if (top >> 16) { exponent += 16; top >>= 16; }
	if (top >> 8) { exponent += 8; top >>= 8; }
	if (top >> 4) { exponent += 4; top >>= 4; }
	if (top >> 2) { exponent += 2; top >>= 2; }
	if (top >> 1) { exponent += 1; }
	return ((exponent - ND_SUB_BITS + 1) << ND_SUB_BITS) + (us >> (exponent - ND_SUB_BITS)) - (1U << ND_SUB_BITS);
}

#endif
