/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The few kernel types the probe reads, with only the fields it reads.
 *
 * `preserve_access_index` makes every access a CO-RE relocation: the loader finds each field by name in the running
 * kernel's BTF, so neither the order nor the offsets here mean anything, and no kernel headers are needed to build.
 */
#ifndef NETDIAG_KERNEL_H
#define NETDIAG_KERNEL_H

#include <linux/types.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

/* include/net/sock.h */
struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
};

/* include/linux/tcp.h */
struct tcp_rack {
	__u64 mstamp;
	__u32 rtt_us;
	__u32 end_seq;
};

struct tcp_sock {
	__u32 srtt_us;
	__u32 mdev_us;
	__u32 snd_cwnd;
	__u32 segs_out;
	__u32 total_retrans;
	__u64 bytes_acked;
	struct tcp_rack rack;
};

#pragma clang attribute pop

#endif
