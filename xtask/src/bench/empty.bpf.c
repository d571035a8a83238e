// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/* The least a raw tracepoint program can do: what remains is the cost of being called, and of being measured. */
#define SEC(name) __attribute__((section(name), used))

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("raw_tp/tcp_probe")
int empty(void *ctx)
{
	return 0;
}
