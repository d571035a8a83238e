// Down-sampling: few points, all extremes, honest gaps.

import assert from "node:assert/strict";
import test from "node:test";
import { downsample, gapRule, spans } from "../../assets/downsample.js";

const HOUR = { from: 0, to: 3600, buckets: 500 };

function hour(value) {
  const t = Array.from({ length: 7200 }, (_, index) => index / 2);
  return { t, x: t.map(value) };
}

test("few rows come through as they are", () => {
  assert.deepEqual(downsample({ t: [0, 1, 2], x: [5, null, 7] }, ["x"], { from: 0, to: 2, buckets: 100 }), [[0, 1, 2], [5, null, 7]]);
});

test("a spike and a dip of one sample survive in an hour", () => {
  const [times, values] = downsample(hour((time) => (time === 1000.5 ? 900 : time === 2000 ? 1 : 20)), ["x"], HOUR);
  assert.ok(times.length <= 2 * 501, `${times.length} points`);
  assert.equal(Math.max(...values), 900);
  assert.equal(Math.min(...values), 1);
});

test("every bucket keeps its own minimum and maximum, in the order they came", () => {
  const columns = hour((time) => Math.sin(time) * time);
  const [times, values] = downsample(columns, ["x"], HOUR);
  const width = 3600 / 500;
  for (let bucket = 0; bucket < 500; bucket++) {
    const inside = (list, at) => list.filter((_, index) => Math.floor(at[index] / width) === bucket);
    const whole = inside(columns.x, columns.t);
    const kept = inside(values, times);
    assert.equal(Math.max(...kept), Math.max(...whole));
    assert.equal(Math.min(...kept), Math.min(...whole));
    assert.equal(kept[0] < kept[1], whole.indexOf(Math.min(...whole)) < whole.indexOf(Math.max(...whole)));
  }
});

test("points don't move when the window does", () => {
  const columns = hour((time) => time);
  const [before] = downsample(columns, ["x"], HOUR);
  const [after] = downsample(columns, ["x"], { from: 0.5, to: 3600.5, buckets: 500 });
  assert.deepEqual(after.slice(10, 400), before.slice(10, 400));
});

test("buckets without a value are null", () => {
  const [times, values] = downsample(hour((time) => (time < 1800 ? 1 : null)), ["x"], HOUR);
  assert.equal(values[times.findIndex((time) => time > 2000)], null);
});

test("time that nobody measured gets a null between its ends", () => {
  const columns = { t: [0, 1, 100, 101], x: [1, 2, 3, 4] };
  const [times, values] = downsample(columns, ["x"], { from: 0, to: 101, buckets: 50, gapAfter: () => 5 });
  assert.deepEqual(times, [0, 1, 50.5, 100, 101]);
  assert.deepEqual(values, [1, 2, null, 3, 4]);
});

test("a gap inside one bucket is a gap too", () => {
  const columns = { t: [0, 0.1, 0.2, 0.9, 1, 1.1], x: [1, 1, 1, 1, 1, 1] };
  const [, values] = downsample(columns, ["x"], { from: 0, to: 2, buckets: 1, gapAfter: () => 0.5 });
  assert.ok(values.includes(null));
});

test("a window without width does not divide by it", () => {
  assert.deepEqual(downsample({ t: [5, 5, 5], x: [1, 2, 3] }, ["x"], { from: 5, to: 5, buckets: 1 })[1], [1, 2, 3]);
});

test("spans join what is flagged, each until the next row", () => {
  assert.deepEqual(spans([0, 1, 2, 3, 4, 5], [0, 1, 1, 0, null, 1]), [[1, 3], [5, 5]]);
  assert.deepEqual(spans([], []), []);
});

test("the gap rule follows the interval and what thinning leaves", () => {
  const rule = gapRule(100_000, 0.5);
  assert.equal(rule(99_990), 5);
  assert.equal(rule(100_000 - 7200), 45);
  assert.equal(rule(0), 400);
  assert.equal(gapRule(100_000, 60)(99_990), 240);
  assert.equal(gapRule(100_000, null)(99_990), 5);
});
