// What holds the page together: connection, window of time, table of flows, experiment, axes and keys.

import assert from "node:assert/strict";
import test from "node:test";
import { START, aheadBy, bannerOf, due, isMeasured, isSilent, lightOf, meaningOf, shownAs, stateOf, status, step } from "../../assets/connection.js";
import { emptyArm, faults, progress, share, withTicks } from "../../assets/phases.js";
import { fromZero, labelsWithin, logarithmic, roundUp, timeSpace } from "../../assets/scales.js";
import { actionOf } from "../../assets/shortcuts.js";
import { MOST_STREAMS, STALLED_FIRST, filtered, firstStreams, pressed, rowsInSight, sorted, streamState } from "../../assets/table.js";
import * as views from "../../assets/view.js";

const after = (...events) => events.reduce((state, [event, at]) => step(state, event, at), START);
const OPEN = { open: true, hiddenSince: null };
const LIVE = [
  [{ kind: "opening" }, 0],
  [{ kind: "hello", staleAfter: 2 }, 0.1],
  [{ kind: "now", age: 0.2, stale: false }, 0.2],
  [{ kind: "live" }, 0.2],
];

test("a page is connecting until the history is complete, then live", () => {
  assert.equal(status(START, 0).connection, "connecting");
  assert.equal(status(after(...LIVE.slice(0, 3)), 0.2).connection, "connecting");
  assert.equal(status(after(...LIVE), 0.3).connection, "live");
});

test("data grows stale by the server's word, and by silence alone", () => {
  const told = after(...LIVE, [{ kind: "now", age: 0.1, stale: true }, 1]);
  assert.equal(status(told, 1).connection, "stale");
  assert.equal(status(after(...LIVE), 4).connection, "stale");
  assert.equal(status(after(...LIVE), 4).age.toFixed(1), "4.0");
  const again = step(told, { kind: "now", age: 0.1, stale: false }, 2);
  assert.equal(status(again, 2).connection, "live");
});

test("a lost connection is retried after 1, 2, 4, 8, 15, 15 s, and from 1 s again once it was live", () => {
  let state = after(...LIVE);
  const waits = [];
  for (let attempt = 0; attempt < 6; attempt++) {
    state = step(state, { kind: "failed" }, 100);
    waits.push(status(state, 100).retryIn);
    assert.equal(status(state, 100).connection, "lost");
    state = step(state, { kind: "opening" }, 100);
    assert.equal(status(state, 100).connection, "lost");
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 15, 15]);
  state = step(step(state, { kind: "live" }, 100), { kind: "failed" }, 100);
  assert.equal(status(state, 100).retryIn, 1);
});

test("an open connection that tells nothing is dead after 20 s, later if rows come seldom", () => {
  assert.equal(isSilent(after(...LIVE), 15), false);
  assert.equal(isSilent(after(...LIVE), 21), true);
  assert.equal(isSilent(after(...LIVE, [{ kind: "hello", staleAfter: 120 }, 1]), 200), false);
});

test("a second attempt that hangs, or falls silent after hello, is given up like the first", () => {
  const again = [...LIVE, [{ kind: "failed" }, 1], [{ kind: "opening" }, 2]];
  assert.equal(due(after(...again), 21, OPEN), null);
  assert.equal(due(after(...again), 23, OPEN), "fail");
  const greeted = after(...again, [{ kind: "hello", staleAfter: 2 }, 10]);
  assert.equal(due(greeted, 29, OPEN), null);
  assert.equal(due(greeted, 31, OPEN), "fail");
});

test("what is closed is opened once its wait is over", () => {
  const lost = after(...LIVE, [{ kind: "failed" }, 100]);
  assert.equal(due(lost, 100.5, { open: false, hiddenSince: null }), null);
  assert.equal(due(lost, 101, { open: false, hiddenSince: null }), "open");
});

test("a page hidden for a minute rests, is not lost meanwhile, and connects at once when it is seen", () => {
  const live = after(...LIVE, [{ kind: "heard" }, 159]);
  assert.equal(due(live, 159, { open: true, hiddenSince: 100 }), null);
  assert.equal(due(live, 160, { open: true, hiddenSince: 100 }), "rest");
  assert.equal(due(after(...LIVE, [{ kind: "failed" }, 1]), 160, { open: false, hiddenSince: 100 }), "rest");
  const resting = step(live, { kind: "resting" }, 160);
  assert.equal(status(resting, 5000).connection, "connecting");
  assert.equal(due(resting, 5000, { open: false, hiddenSince: 100 }), null);
  assert.equal(due(resting, 5000, { open: false, hiddenSince: null }), "open");
  const opening = step(resting, { kind: "opening" }, 5000);
  assert.equal(status(opening, 5000).connection, "connecting");
  assert.equal(due(opening, 5001, OPEN), null);
  assert.equal(due(opening, 5021, OPEN), "fail");
});

test("nothing but a live connection claims anything of the link", () => {
  assert.equal(lightOf("live", false), "false");
  assert.equal(lightOf("live", 1), "true");
  assert.equal(lightOf("live", null), "unknown");
  assert.equal(stateOf("live", { state: "clear" }), "clear");
  for (const connection of ["connecting", "lost", "stale"]) {
    assert.equal(lightOf(connection, false), "unknown");
    assert.equal(lightOf(connection, true), "unknown");
    assert.equal(stateOf(connection, { state: "clear" }), "stale");
  }
});

test("nothing is claimed that nobody has measured", () => {
  const clear = { state: "clear" };
  const idle = { state: "idle" };
  const row = { flows: 2, measured: true };
  assert.equal(isMeasured(null, row), false);
  assert.equal(isMeasured(clear, null), false);
  assert.equal(isMeasured({ state: "stale" }, row), false);
  assert.equal(isMeasured(idle, { ...row, flows: 0 }), false);
  assert.equal(isMeasured(idle, { ...row, measured: false }), false);
  assert.equal(isMeasured(idle, row), true);
  assert.equal(isMeasured(idle, { ...row, flows: null }), true);
  assert.equal(isMeasured({ state: "stalled" }, { ...row, measured: false }), true);
});

test("too many viewers are told of as long as the server refuses, and not longer", () => {
  const failed = (refused) => [{ kind: "failed", refused }, 1];
  const full = [[{ kind: "opening" }, 0], failed(true), [{ kind: "full" }, 1]];
  const told = (...events) => status(after(...full, ...events), 2).full;
  assert.equal(told(), true);
  assert.equal(told([{ kind: "opening" }, 2], failed(true)), true);
  assert.equal(told([{ kind: "opening" }, 2], failed(false)), false);
  assert.equal(told([{ kind: "opening" }, 2], [{ kind: "hello" }, 2]), false);
  assert.equal(bannerOf("lost", { full: true }), "full");
  assert.equal(bannerOf("live", { full: true }), null);
});

test("old data has its banner, but not an experiment that is over", () => {
  assert.equal(bannerOf("live", {}), null);
  assert.equal(bannerOf("live", { hold: true }), "hold");
  assert.equal(bannerOf("stale", { hold: true }), "stale");
  assert.equal(bannerOf("stale", { over: true }), null);
  assert.equal(bannerOf("lost", { over: true }), "lost");
});

test("an experiment that is over is finished, not stale, unless its server is gone", () => {
  for (const connection of ["live", "stale"]) assert.equal(shownAs(connection, { over: true }), "finished");
  assert.equal(shownAs("lost", { over: true }), "lost");
  assert.equal(shownAs("stale", { over: false }), "stale");
});

test("data from the future is not called live, and its banner says why", () => {
  assert.equal(aheadBy(1000, 995), 0);
  assert.equal(aheadBy(1000, 1100), 0);
  assert.equal(aheadBy(1000, 400), 600);
  assert.equal(shownAs("live", { ahead: 600 }), "ahead");
  assert.equal(shownAs("stale", { ahead: 600 }), "stale");
  assert.equal(bannerOf("live", { ahead: 600 }), "ahead");
  assert.equal(bannerOf("live", { ahead: 600, hold: true }), "hold");
  assert.equal(bannerOf("lost", { ahead: 600 }), "lost");
});

test("a light that is still on over a clear link explains itself", () => {
  assert.equal(meaningOf("clear", "true"), "means.calming");
  assert.equal(meaningOf("clear", "false"), "means.clear");
  assert.equal(meaningOf("stalled", "true"), "means.stalled");
});

const BOUNDS = { from: 0, to: 6000, least: 1 };

test("the window ends now, at the pause, or where it was zoomed to", () => {
  const check = (view, want) => assert.deepEqual(views.windowOf(view, 1000, 5000), want);
  check(views.LIVE, { from: 4700, to: 5000 });
  check(views.withRange(views.LIVE, "all"), { from: 1000, to: 5000 });
  const held = views.paused(views.LIVE, 4000);
  check(held, { from: 3700, to: 4000 });
  check(views.zoomed(held, 3900, 3800, BOUNDS), { from: 3800, to: 3900 });
  check(views.resumed(views.zoomed(held, 3900, 3800, BOUNDS)), { from: 4700, to: 5000 });
  assert.equal(views.isLive(held), false);
});

test("no window is empty", () => {
  const width = ({ from, to }) => to - from;
  assert.ok(width(views.windowOf(views.zoomed(views.LIVE, 5, 5, BOUNDS), 0, 9)) >= 1);
  assert.ok(width(views.windowOf(views.withRange(views.LIVE, "all"), null, null)) >= 1);
  assert.ok(width(views.windowOf(views.withRange(views.LIVE, "all"), 7, 7)) >= 1);
});

test("zooming keeps the middle, panning the width", () => {
  assert.deepEqual(views.scaled(views.LIVE, { from: 100, to: 200 }, 0.5, BOUNDS).zoom, { from: 125, to: 175 });
  assert.deepEqual(views.panned(views.LIVE, { from: 100, to: 200 }, -0.25, BOUNDS).zoom, { from: 75, to: 175 });
});

test("zooming out ends at the history and panning at now, however often", () => {
  const bounds = views.boundsOf(views.withRange(views.LIVE, 60), 1000, 5000, [4998, 4999, 5000]);
  assert.deepEqual(bounds, { from: 800, to: 5000, least: 3 });
  const repeat = (change) => {
    let view = views.LIVE;
    for (let press = 0; press < 3000; press++) view = change(view, views.windowOf(view, 1000, 5000));
    return view.zoom;
  };
  assert.deepEqual(repeat((view, window) => views.scaled(view, window, 2, bounds)), { from: 800, to: 5000 });
  assert.deepEqual(repeat((view, window) => views.panned(view, window, 0.25, bounds)), { from: 4700, to: 5000 });
  assert.deepEqual(repeat((view, window) => views.panned(view, window, -0.25, bounds)), { from: 800, to: 1100 });
  const { from, to } = repeat((view, window) => views.scaled(view, window, 0.5, bounds));
  assert.equal(to - from, 3);
  assert.equal(views.zoomed(views.LIVE, NaN, 5, bounds), views.LIVE);
});

test("a range longer than the history may be zoomed out to, and no history is no fault", () => {
  assert.equal(views.boundsOf(views.withRange(views.LIVE, 3600), 4990, 5000).from, 1400);
  assert.deepEqual(views.boundsOf(views.withRange(views.LIVE, "all"), null, null), { from: -1, to: 0, least: 1 });
});

const flow = (peer, more = {}) => ({ peer, local: "10.0.0.1:8000", state: "clear", cause: null, waiting_us: 0, p95_rtt_us: null, ...more });
const peers = (flows) => flows.map(({ peer }) => peer).join(" ");

test("stalled flows come first, those that wait longest before the others", () => {
  const flows = [flow("a"), flow("b", { state: "stalled", waiting_us: 5 }), flow("c", { state: "constrained" }), flow("d", { state: "stalled", waiting_us: 9 })];
  assert.equal(peers(sorted(flows, STALLED_FIRST)), "d b c a");
  assert.equal(peers(flows), "a b c d");
});

test("states are sorted by how urgent they are, not by their letters", () => {
  const flows = ["reader", "idle", "stalled", "clear", "constrained", "stale"].map((state) => flow(state, { state }));
  assert.equal(peers(sorted(flows, STALLED_FIRST)), "stalled constrained reader clear idle stale");
});

test("flows without a value are last in both directions", () => {
  const flows = [flow("a"), flow("b", { p95_rtt_us: 5 }), flow("c", { p95_rtt_us: 9 })];
  assert.equal(peers(sorted(flows, { key: "p95_rtt_us", direction: "ascending" })), "b c a");
  assert.equal(peers(sorted(flows, { key: "p95_rtt_us", direction: "descending" })), "c b a");
});

test("pressing a head sorts by it, again the other way", () => {
  const once = pressed(STALLED_FIRST, "peer");
  assert.deepEqual(once, { key: "peer", direction: "ascending" });
  assert.deepEqual(pressed(once, "peer"), { key: "peer", direction: "descending" });
  assert.equal(pressed(once, "p95_rtt_us").direction, "descending");
});

test("the filter wants every word, in any of its four fields", () => {
  const flows = [flow("10.0.0.2:1", { state: "stalled", cause: "path" }), flow("10.0.0.3:1"), flow("[2001:DB8::1]:9")];
  const check = (text, want) => assert.equal(peers(filtered(flows, text)), want);
  check("", peers(flows));
  check("  STALLED  path ", "10.0.0.2:1");
  check("10.0.0 8000", "10.0.0.2:1 10.0.0.3:1 [2001:DB8::1]:9");
  check("db8::", "[2001:DB8::1]:9");
  check("nothing", "");
});

test("the rows in sight are few, whatever there is", () => {
  const sight = (scrollTop, total) => rowsInSight({ scrollTop, height: 340, rowHeight: 34, total, overscan: 2 });
  assert.deepEqual(sight(0, 10_000), { start: 0, end: 12 });
  assert.deepEqual(sight(3400, 10_000), { start: 98, end: 112 });
  assert.deepEqual(sight(339_660, 10_000), { start: 9988, end: 10_000 });
  assert.deepEqual(sight(9999, 3), { start: 3, end: 3 });
  assert.deepEqual(sight(0, 0), { start: 0, end: 0 });
});

const EXPERIMENT = {
  seconds: 60,
  phases: [
    { name: "calm", from_seconds: 0, to_seconds: 12, fault: false },
    { name: "loss", from_seconds: 12, to_seconds: 60, fault: true },
  ],
};

test("an experiment is where its arms are", () => {
  const arm = withTicks(emptyArm(), { arm: 0, seconds: [11.5, 12], health: [1, 0.5] });
  assert.deepEqual(progress(EXPERIMENT, [arm, emptyArm()]), { at: 12, phase: 1, left: 48 });
  assert.deepEqual(progress(EXPERIMENT, []), { at: 0, phase: 0, left: 60 });
  assert.deepEqual(faults(EXPERIMENT), [[12, 60]]);
  assert.equal(share(EXPERIMENT, 12), "20.000%");
  assert.equal(share(EXPERIMENT, 61), "100.000%");
  assert.equal(arm.rtt_p95[0], null);
});

test("ticks that are older than the newest are left out", () => {
  const arm = withTicks(withTicks(emptyArm(), { seconds: [1, 2], health: [1, 0.9] }), { seconds: [1.5, 3], health: [0.1, 0.8] });
  assert.deepEqual(arm.t, [1, 2, 3]);
  assert.deepEqual(arm.health, [1, 0.9, 0.8]);
});

test("an arm's ticks are bounded and keep their extremes", () => {
  let arm = emptyArm();
  for (let tick = 0; tick < 40_000; tick++) {
    arm = withTicks(arm, { seconds: [tick / 2], retrans: [tick === 777 ? 99 : 0] });
  }
  assert.ok(arm.t.length <= 6000, `${arm.t.length}`);
  assert.equal(Math.max(...arm.retrans), 99);
});

test("axes start at zero, end at round numbers and hold their values", () => {
  assert.equal(roundUp(0), 0);
  assert.equal(roundUp(137), 150);
  assert.equal(roundUp(0.021), 0.03);
  assert.deepEqual(fromZero(4)(null, null, null), [0, 4]);
  assert.deepEqual(fromZero(4)(null, 0, 96), [0, 100]);
  for (const [min, max] of [[0.2, 900], [20, 20], [0, 5], [null, null]]) {
    const [low, high] = logarithmic(null, min, max);
    assert.ok(low > 0 && low < high);
    if (max) assert.ok(high > max && (min <= 0 || low < min));
  }
});

test("a label beyond the edge of an axis is left empty", () => {
  assert.deepEqual(labelsWithin([0, 30, 60], ["0 s", "30 s", "60 s"], { place: (at) => at * 10, edge: 599 }), ["0 s", "30 s", ""]);
});

test("a narrow chart has labels of minutes, not only one", () => {
  assert.equal(timeSpace(290, 300, { dated: false }), 48);
  assert.equal(timeSpace(1130, 300, { dated: false }), 76);
  assert.equal(timeSpace(290, 300, { dated: true }), 56);
  assert.equal(timeSpace(290, 7 * 86_400, { dated: true }), 76);
});

test("keys act, but not where they mean something else", () => {
  const target = (tag) => ({ closest: (selector) => (tag && selector.includes(tag) ? { matches: (wanted) => wanted.includes(tag) } : null) });
  const press = (key, tag, more = {}) => actionOf({ key, target: target(tag), ...more });
  assert.equal(press("1"), "range.60");
  assert.equal(press(" "), "pause");
  assert.equal(press("L"), "scale");
  assert.equal(press("x"), null);
  assert.equal(press("1", "input"), null);
  assert.equal(press(" ", "button"), null);
  assert.equal(press("2", "button"), "range.300");
  assert.equal(press("ArrowLeft", "[role='region']"), null);
  assert.equal(press("1", null, { ctrlKey: true }), null);
});

test("of a gateway's streams those that are held come first, and a few hundred are listed", () => {
  const streams = Array.from({ length: 300 }, (_, index) => ({ id: String(index), held: index >= 298 }));
  const listed = firstStreams(streams);
  assert.equal(listed.length, MOST_STREAMS);
  assert.deepEqual(listed.slice(0, 4).map((stream) => stream.id), ["298", "299", "0", "1"]);
  assert.deepEqual(firstStreams([]), []);
  const states = [{}, { held: true }, { held: true, parked: true }, { parked: true }].map(streamState);
  assert.deepEqual(states, ["flowing", "held", "parked", "parked"]);
});
