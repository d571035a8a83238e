/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The records that the BPF program and user space share. `src/ebpf/records.rs` mirrors them; the sizes are checked at
 * compile time on both sides.
 */
#ifndef NETDIAG_H
#define NETDIAG_H

#include <linux/types.h>

/* The histogram is that of `netdiag_telemetry::bucket_of`: 32 buckets per power of two, up to 2^27 us. */
#define ND_SUB_BITS 5

/* RTT samples that a flow collects before they are counted, so that most ACKs touch one cache line of the table. */
#define ND_PENDING 8
/* Marks a pending sample that is there; round trips are far below it. */
#define ND_TAKEN (1U << 31)

/*
 * Octaves (powers of two) of the histogram that a flow holds itself, octave o in place o mod ND_OCTAVES: RTTs within a
 * factor of eight of each other all have room.
 */
#define ND_OCTAVES 4

/*
 * What every ACK touches of a flow: one slot of the table, one cache line. Only user space sets `stale`, everything
 * else is the kernel's. `version` is odd while pending samples move to the histogram.
 */
struct nd_flow {
	__u64 sk;	       /* address of the struct sock; 0: the slot is free */
	__u64 rack_mstamp;     /* the last RTT sample taken: when its segment was sent, */
	__u32 rack_end_seq;    /* where that ended, */
	__u32 rack_rtt_us;     /* and the sample itself */
	__u32 version;
	__u8 pending;	       /* samples below */
	__u8 stale;	       /* the counters were read, so the next ACK is to copy them again */
	__u8 passed_over;      /* the filters leave this socket out: remembered, so that its ACKs cost next to nothing */
	__u8 pad;
	__u32 samples[ND_PENDING]; /* microseconds | ND_TAKEN */
};
_Static_assert(sizeof(struct nd_flow) == 64, "struct nd_flow is shared with user space");

/* Counts of one power of two of the histogram. */
struct nd_octave {
	__u16 counts[1 << ND_SUB_BITS];
};

/* The rest of a flow, at the same index. Counters are the kernel's own, cumulative. */
struct nd_detail {
	__u64 id;	       /* unique for the life of the probe; 0: being filled */
	__u64 rtt_sum_us;      /* of all samples that are counted in the histogram */
	__u64 bytes_acked;
	__u32 rtt_count;
	__u32 segs_out;
	__u32 total_retrans;
	__u32 srtt_us;	       /* smoothed RTT << 3, as the kernel stores it */
	__u32 mdev_us;	       /* RTT variation << 2 */
	__u32 cwnd;
	__u8 held[ND_OCTAVES]; /* the octave in each place, plus one; 0: none */
	__u8 opened;	       /* the probe saw the handshake complete */
	__u8 closed;
	__u8 pad[2];
	__u32 netns;	       /* inode of the network namespace */
	__u16 lport;	       /* host order */
	__u16 rport;	       /* host order */
	__u8 laddr[16];	       /* IPv4 as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 pad2[32];
	struct nd_octave octaves[ND_OCTAVES];
};
_Static_assert(sizeof(struct nd_detail) == 384, "struct nd_detail is shared with user space");

/* An octave that had to make room in its flow. */
struct nd_spilled_key {
	__u64 id;     /* nd_detail.id */
	__u32 octave;
	__u32 pad;
};
_Static_assert(sizeof(struct nd_spilled_key) == 16, "struct nd_spilled_key is shared with user space");

struct nd_spilled {
	__u32 counts[1 << ND_SUB_BITS];
};
_Static_assert(sizeof(struct nd_spilled) == 128, "struct nd_spilled is shared with user space");

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

#define ND_MAX_US ((1U << 27) - 1)

/* The bucket of a round trip. */
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
