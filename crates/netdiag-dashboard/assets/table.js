// The table of flows without its elements: filtering, sorting, and which rows are in sight.
//
// Invariant: sorting is stable and total. Flows without a value come last in either direction, since "unknown" is no small number.

import { SEVERITY } from "./rows.js";

// What is recommended comes before the details, for which a narrow screen has to be scrolled. `key` is the field, `value` what it sorts
// by if not the field itself, `first` the direction that a first press gives.
export const TABLE_COLUMNS = [
  { key: "peer", first: "ascending" },
  { key: "local", first: "ascending" },
  { key: "state", first: "descending", value: (flow) => SEVERITY.indexOf(flow.state) },
  { key: "current_tps", first: "ascending" },
  { key: "cause", first: "ascending" },
  { key: "p95_rtt_us", first: "descending" },
  { key: "srtt_us", first: "descending" },
  { key: "retrans_count", first: "descending" },
  { key: "unacked_segs", first: "descending" },
  { key: "notsent_bytes", first: "descending" },
  { key: "waiting_us", first: "descending" },
  { key: "throughput_bps", first: "descending" },
];

// What waits longest first: that is what an operator came for.
export const STALLED_FIRST = { key: "state", direction: "descending" };

export function pressed(sort, key) {
  const { first } = TABLE_COLUMNS.find((column) => column.key === key);
  if (sort.key !== key) return { key, direction: first };
  return { key, direction: sort.direction === "ascending" ? "descending" : "ascending" };
}

export function sorted(flows, { key, direction }) {
  const value = TABLE_COLUMNS.find((column) => column.key === key).value ?? ((flow) => flow[key]);
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = flows.map((flow) => ({ flow, by: value(flow) ?? null }));
  keyed.sort((a, b) => {
    if (a.by === b.by) return b.flow.waiting_us - a.flow.waiting_us;
    if (a.by === null) return 1;
    if (b.by === null) return -1;
    return a.by < b.by ? -sign : sign;
  });
  return keyed.map(({ flow }) => flow);
}

// Every word must be part of the peer, the local address, the state or the cause.
export function filtered(flows, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return flows;
  return flows.filter((flow) => {
    const hay = `${flow.peer} ${flow.local} ${flow.state} ${flow.cause ?? ""}`.toLowerCase();
    return words.every((word) => hay.includes(word));
  });
}

// Streams of a gateway that are listed one by one.
export const MOST_STREAMS = 200;

// Those that are held first, and of the others the oldest. They come in the order of their age.
export function firstStreams(streams) {
  const held = streams.filter((stream) => stream.held);
  const flowing = streams.filter((stream) => !stream.held);
  return [...held, ...flowing].slice(0, MOST_STREAMS);
}

// Of a gateway's stream. One whose client's connection is gone is neither held for it nor does it flow.
export function streamState(stream) {
  if (stream.parked) return "parked";
  return stream.held ? "held" : "flowing";
}

// The rows to draw: those in sight and a few more, so that a fast hand does not outrun them.
export function rowsInSight({ scrollTop, height, rowHeight, total, overscan = 6 }) {
  const start = Math.max(0, Math.floor(scrollTop / rowHeight) - overscan);
  const end = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + overscan);
  return { start: Math.min(start, Math.max(0, end)), end };
}
