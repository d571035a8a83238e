// The rows that the page holds, in bounded memory: whole for about an hour, then the extremes of 10 s for a day, then those of
// 2 min for a week. Averages would be smaller still, but would lose the one sample that somebody looks for.
//
// Invariant: times ascend, every column has the same length, and a value that was the largest or smallest of its bucket is never
// dropped before the bucket is.

export const COLUMNS = [
  "t", "rtt_min", "rtt_avg", "rtt_p95", "retrans", "health", "anomaly", "current_tps", "target_tps", "throughput_bps",
  "flows", "stalled", "state",
];

// From the least to the most urgent. `stale` is first: it says nothing about the link.
export const SEVERITY = ["stale", "idle", "clear", "reader", "constrained", "stalled"];

// An hour at 2 Hz is 7200 rows.
const FINE_SECONDS = 3600;
const FINE_ROWS = 8000;
const MEDIUM = { bucket: 10, seconds: 24 * 3600 };
// A week of pairs.
const COARSE = { bucket: 120, rows: 10_080 };
// Rows are thinned this many at a time, since moving them one by one would copy the rest each time.
const SLACK_ROWS = 500;
const SLACK_SECONDS = 250;

export class Rows {
  #fine = empty();
  #medium = empty();
  #coarse = empty();

  // Takes a columnar batch. Rows older than the newest one are left out: the charts need ascending times.
  append(batch) {
    const count = batch.t?.length ?? 0;
    let newest = this.newest ?? -Infinity;
    for (let row = 0; row < count; row++) {
      if (!(batch.t[row] >= newest)) continue;
      newest = batch.t[row];
      for (const name of COLUMNS) this.#fine[name].push(batch[name]?.[row] ?? null);
    }
    this.#settle();
  }

  clear() {
    this.#fine = empty();
    this.#medium = empty();
    this.#coarse = empty();
  }

  get length() {
    return this.#tiers().reduce((sum, tier) => sum + tier.t.length, 0);
  }

  get oldest() {
    return this.#tiers().find((tier) => tier.t.length > 0)?.t[0] ?? null;
  }

  get newest() {
    return this.#tiers().findLast((tier) => tier.t.length > 0)?.t.at(-1) ?? null;
  }

  // The rows from `from` to `to`, and one more at each end if asked for, so that lines run to the edge of a chart.
  slice(from, to, { names = COLUMNS, margin = 0 } = {}) {
    const out = empty(names);
    const below = (bound, time) => this.#tiers().reduce((sum, tier) => sum + bound(tier.t, time), 0);
    // Places in all tiers together, so that the margin is taken once and not from each.
    let start = Math.max(0, below(lowerBound, from) - margin);
    let end = below(upperBound, to) + margin;
    for (const tier of this.#tiers()) {
      for (const name of names) out[name] = out[name].concat(tier[name].slice(Math.max(0, start), Math.max(0, end)));
      start -= tier.t.length;
      end -= tier.t.length;
    }
    return out;
  }

  #tiers() {
    return [this.#coarse, this.#medium, this.#fine];
  }

  #settle() {
    const newest = this.newest;
    const fine = this.#fine.t;
    if (fine.length > FINE_ROWS || fine[0] < newest - FINE_SECONDS - SLACK_SECONDS) {
      const surplus = fine.length > FINE_ROWS ? fine.length - FINE_ROWS + SLACK_ROWS : 0;
      const cut = Math.max(surplus, lowerBound(fine, newest - FINE_SECONDS));
      this.#fine = move(this.#fine, cut, MEDIUM.bucket, this.#medium);
    }
    const medium = this.#medium.t;
    if (medium[0] < newest - MEDIUM.seconds - SLACK_SECONDS * MEDIUM.bucket) {
      const cut = lowerBound(medium, newest - MEDIUM.seconds);
      this.#medium = move(this.#medium, cut, COARSE.bucket, this.#coarse);
    }
    if (this.#coarse.t.length > COARSE.rows + SLACK_ROWS) this.#coarse = part(this.#coarse, -COARSE.rows);
  }
}

// The extremes of each bucket of so many seconds: one row with the minima, one with the maxima. A bucket of one or two rows stays
// as it is, so that what was thinned once is not changed by doing it again.
export function thin(columns, bucket) {
  const names = Object.keys(columns);
  const out = empty(names);
  const { t } = columns;
  for (let start = 0; start < t.length; ) {
    let end = start + 1;
    while (end < t.length && Math.floor(t[end] / bucket) === Math.floor(t[start] / bucket)) end++;
    if (end - start <= 2) {
      for (const name of names) for (let row = start; row < end; row++) out[name].push(columns[name][row]);
    } else {
      out.t.push(t[start], t[end - 1]);
      for (const name of names) if (name !== "t") out[name].push(...extremes(columns[name], start, end, rankOf(name)));
    }
    start = end;
  }
  return out;
}

function extremes(values, start, end, rank) {
  let least = null;
  let most = null;
  for (let row = start; row < end; row++) {
    const value = values[row];
    if (value === null) continue;
    if (least === null || rank(value) < rank(least)) least = value;
    if (most === null || rank(value) > rank(most)) most = value;
  }
  return [least, most];
}

function rankOf(name) {
  return name === "state" ? (state) => SEVERITY.indexOf(state) : (value) => value;
}

// Moves the rows before `cut` into `into`, thinned, and gives the rest. Only whole buckets move, so that each is thinned once.
function move(from, cut, bucket, into) {
  const edge = Math.floor(from.t[Math.min(cut, from.t.length - 1)] / bucket) * bucket;
  const whole = lowerBound(from.t, edge);
  const thinned = thin(part(from, 0, whole), bucket);
  for (const name of COLUMNS) for (const value of thinned[name]) into[name].push(value);
  return part(from, whole);
}

function part(columns, start, end) {
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values.slice(start, end)]));
}

function empty(names = COLUMNS) {
  return Object.fromEntries(names.map((name) => [name, []]));
}

// The first index whose time is not below `time`.
export function lowerBound(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The values of the last row that is not after `to`: rows may be there that are not shown.
export function newestOf(columns, names, to) {
  const row = upperBound(columns.t, to) - 1;
  return Object.fromEntries(names.map((name) => [name, columns[name][row] ?? null]));
}

function upperBound(times, time) {
  let low = lowerBound(times, time);
  while (low < times.length && times[low] === time) low++;
  return low;
}
