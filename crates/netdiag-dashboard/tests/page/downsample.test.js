// Down-sampling: few points, all extremes, honest gaps.

import assert from "node:assert/strict";
import test from "node:test";
import { downsample, isGap, spans } from "../../assets/downsample.js";

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

const steady = (from, count, step) => Array.from({ length: count }, (_, index) => from + index * step);

test("time that nobody measured gets a null between its ends", () => {
  const t = [...steady(0, 20, 1), ...steady(100, 20, 1)];
  const [times, values] = downsample({ t, x: t.map(() => 1) }, ["x"], { from: 0, to: 120, buckets: 50 });
  assert.equal(times[values.indexOf(null)], 59.5);
  assert.equal(values.filter((value) => value === null).length, 1);
});

test("a gap inside one bucket is a gap too", () => {
  const t = [...steady(0, 20, 0.5), ...steady(50, 20, 0.5)];
  assert.ok(downsample({ t, x: t.map(() => 1) }, ["x"], { from: 0, to: 100, buckets: 1 })[1].includes(null));
});

test("what thinning leaves is no gap, nor is where it begins; a longer pause is", () => {
  const pairs = (from, count, bucket) => steady(from, count, bucket).flatMap((start) => [start, start + bucket - 0.5]);
  const times = [...pairs(0, 50, 120), ...pairs(6000, 60, 10), ...steady(6600, 100, 0.5)];
  assert.deepEqual(times.filter((_, index) => index > 0 && isGap(times, index)), []);
  const paused = times.map((time) => (time < 6300 ? time : time + 90));
  assert.deepEqual(paused.filter((_, index) => index > 0 && isGap(paused, index)), [6390]);
});

test("an interval of a minute has no gaps; two rows alone have none", () => {
  const times = steady(0, 20, 60);
  assert.ok(!times.some((_, index) => index > 0 && isGap(times, index)));
  assert.equal(isGap([0, 1000], 1), false);
});

test("a window without width does not divide by it", () => {
  assert.deepEqual(downsample({ t: [5, 5, 5], x: [1, 2, 3] }, ["x"], { from: 5, to: 5, buckets: 1 })[1], [1, 2, 3]);
});

test("a pause of a few seconds is a gap at two rows a second, an interval that failed once is none", () => {
  const pause = (seconds) => [...steady(0, 20, 0.5), ...steady(9.5 + seconds, 20, 0.5)];
  assert.ok(isGap(pause(5), 20));
  assert.ok(isGap(pause(25), 20));
  assert.ok(!isGap(pause(2.5), 20));
});

test("a span ends where measuring does", () => {
  assert.deepEqual(spans([0, 1, 30, 60, 61], [1, 1, null, 1, 0]), [[0, 1], [60, 61]]);
});

test("spans join what is flagged, each until the next row", () => {
  assert.deepEqual(spans([0, 1, 2, 3, 4, 5], [0, 1, 1, 0, null, 1]), [[1, 3], [5, 5]]);
  assert.deepEqual(spans([], []), []);
});
