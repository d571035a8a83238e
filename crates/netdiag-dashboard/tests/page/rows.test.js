// The buffer of rows: bounded, ascending, and never without the extremes.

import assert from "node:assert/strict";
import test from "node:test";
import { COLUMNS, Rows, lowerBound, newestOf, thin } from "../../assets/rows.js";

const START = 1_700_000_000;

function batch(times, change = {}) {
  const columns = Object.fromEntries(COLUMNS.map((name) => [name, times.map(() => 1)]));
  columns.t = times;
  columns.state = times.map(() => "clear");
  for (const [name, values] of Object.entries(change)) columns[name] = values;
  return columns;
}

const every = (seconds, count) => Array.from({ length: count }, (_, index) => START + index * seconds);

test("rows of the last hour stay whole", () => {
  const rows = new Rows();
  rows.append(batch(every(0.5, 7200)));
  assert.equal(rows.length, 7200);
  assert.deepEqual(rows.slice(START + 1, START + 2).t, [START + 1, START + 1.5, START + 2]);
});

test("a day at 2 Hz is bounded, ascends, and keeps a spike of one sample and a single dip", () => {
  const rows = new Rows();
  const spike = START + 1234.5;
  for (let chunk = 0; chunk < 36; chunk++) {
    const times = Array.from({ length: 4800 }, (_, index) => START + (chunk * 4800 + index) / 2);
    rows.append(batch(times, {
      rtt_p95: times.map((time) => (time === spike ? 900 : 20)),
      health: times.map((time) => (time === spike ? 0.1 : 0.9)),
      state: times.map((time) => (time === spike ? "stalled" : "clear")),
    }));
  }
  assert.ok(rows.length < 8600 + 2 * 8640 + 1500, `${rows.length} rows`);
  const all = rows.slice(-Infinity, Infinity);
  assert.ok(all.t.every((time, index) => index === 0 || time >= all.t[index - 1]));
  assert.equal(all.rtt_p95.filter((value) => value === 900).length, 1);
  assert.equal(Math.min(...all.health), 0.1);
  assert.ok(all.state.includes("stalled"));
  assert.equal(rows.oldest, START);
});

test("a month stays within what a week takes, the last day in buckets of 10 s, and each with its extremes", () => {
  const rows = new Rows();
  const end = START + 31 * 86_400;
  const spikes = { 901: end - 5 * 86_400, 902: end - 12 * 3600, 903: end - 600 };
  const value = (time) => Number(Object.keys(spikes).find((spike) => spikes[spike] === time) ?? 20);
  for (let day = 0; day < 31; day++) {
    const times = Array.from({ length: 17_280 }, (_, index) => START + day * 86_400 + index * 5);
    rows.append(batch(times, { rtt_p95: times.map(value), health: times.map((time) => -value(time)) }));
  }
  assert.ok(rows.length < 40_000, `${rows.length} rows`);
  assert.ok(rows.newest - rows.oldest > 6 * 86_400);
  const day = rows.slice(end - 23 * 3600, end - 2 * 3600).t;
  assert.ok(day.length >= 21 * 360, `${day.length} rows in 21 hours`);
  const all = rows.slice(-Infinity, Infinity);
  for (const [spike, width] of [[901, 120], [902, 10], [903, 0]]) {
    assert.ok(Math.abs(all.t[all.rtt_p95.indexOf(spike)] - spikes[spike]) <= width, `${spike}`);
    assert.ok(Math.abs(all.t[all.health.indexOf(-spike)] - spikes[spike]) <= width, `-${spike}`);
  }
});

test("rows that are older than the newest are left out, and clear() leaves nothing", () => {
  const rows = new Rows();
  rows.append(batch([START, START + 1]));
  rows.append(batch([START - 5, START + 1, START + 2]));
  assert.deepEqual(rows.slice(0, Infinity).t, [START, START + 1, START + 1, START + 2]);
  rows.clear();
  assert.equal(rows.length, 0);
  assert.equal(rows.newest, null);
  assert.equal(rows.oldest, null);
});

test("a missing column is null, and so is an undefined value", () => {
  const rows = new Rows();
  rows.append({ t: [START], rtt_min: [undefined], state: ["clear"] });
  assert.equal(rows.slice(0, Infinity).rtt_min[0], null);
  assert.equal(rows.slice(0, Infinity).flows[0], null);
});

test("a margin takes one more row at each end", () => {
  const rows = new Rows();
  rows.append(batch(every(1, 10)));
  const { t } = rows.slice(START + 3, START + 5, { names: ["t"], margin: 1 });
  assert.deepEqual(t, [2, 3, 4, 5, 6].map((second) => START + second));
});

test("a margin is taken once, not from each tier", () => {
  const rows = new Rows();
  for (let hour = 0; hour < 30; hour++) rows.append(batch(every(1, 3600).map((time) => time + hour * 3600)));
  const all = rows.slice(-Infinity, Infinity).t;
  const check = (from, to) => {
    const start = lowerBound(all, from);
    const end = all.findLastIndex((time) => time <= to) + 1;
    assert.deepEqual(rows.slice(from, to, { names: ["t"], margin: 1 }).t, all.slice(Math.max(0, start - 1), end + 1));
  };
  const at = (hour) => START + hour * 3600;
  for (const [from, to] of [[at(0.5), at(1)], [at(10), at(12)], [at(29.5), at(29.6)], [at(2), at(29.5)], [at(-2), at(-1)], [at(99), at(100)]]) check(from, to);
  // From one tier into the next.
  for (let index = 1; index < all.length; index += 97) check(all[index], all[Math.min(all.length - 1, index + 50)]);
});

test("the newest values shown are those of the last row in the window", () => {
  const columns = { t: [1, 2, 2, 3], x: [10, 20, 21, 30] };
  assert.deepEqual(newestOf(columns, ["x"], 2.5), { x: 21 });
  assert.deepEqual(newestOf(columns, ["x"], 3), { x: 30 });
  assert.deepEqual(newestOf(columns, ["x"], 0.5), { x: null });
});

test("states are thinned by how urgent they are, not by their letters", () => {
  assert.deepEqual(thin({ t: [0, 1, 2], state: ["stale", "clear", "reader"] }, 10).state, ["stale", "reader"]);
  assert.deepEqual(thin({ t: [0, 1, 2], state: ["idle", "constrained", "clear"] }, 10).state, ["idle", "constrained"]);
});

test("thinning twice is thinning once", () => {
  const columns = batch(every(0.5, 1000), { rtt_p95: every(0.5, 1000).map((_, index) => (index * 7919) % 101) });
  const once = thin(columns, 10);
  assert.deepEqual(thin(once, 10), once);
  assert.ok(once.t.length <= 2 * 51);
});

test("nulls are no extremes; a bucket without values stays null", () => {
  const thinned = thin({ t: [0, 1, 2, 10, 11, 12], x: [null, 5, 3, null, null, null] }, 10);
  assert.deepEqual(thinned, { t: [0, 2, 10, 12], x: [3, 5, null, null] });
});

test("lowerBound finds the first that is not below", () => {
  assert.equal(lowerBound([1, 2, 2, 3], 2), 1);
  assert.equal(lowerBound([1, 2], 5), 2);
  assert.equal(lowerBound([], 5), 0);
});
