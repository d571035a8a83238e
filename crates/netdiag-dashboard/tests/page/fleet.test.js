// The fleet's figures as the page makes them of what the fleet's process says.

import assert from "node:assert/strict";
import test from "node:test";
import { MOST_NODES, firstNodes, healthOf, highest, partOf, path, stateOf, streamsOf } from "../../assets/shares.js";

const node = (name, more = {}) => ({ node: name, streams: 2, demand_tps: 40, given_tps: 15, health: 0.8, state: "clear", age_seconds: 0.1, is_silent: false, ...more });

test("silent nodes come first, the others in their order, and no more than can be read", () => {
  const nodes = [node("a"), node("b", { is_silent: true }), node("c")];
  assert.deepEqual(firstNodes(nodes).map((each) => each.node), ["b", "a", "c"]);
  const many = Array.from({ length: 1000 }, (_, at) => node(`n${at}`, { is_silent: at === 999 }));
  assert.equal(firstNodes(many).length, MOST_NODES);
  assert.equal(firstNodes(many)[0].node, "n999");
  assert.deepEqual(firstNodes([]), []);
});

test("a part is of the engine's capacity, and unknown without one", () => {
  assert.equal(partOf(node("a"), { capacity_tps: 60 }), 0.25);
  assert.equal(partOf(node("a"), { capacity_tps: null }), null);
  assert.equal(streamsOf({ nodes: [node("a"), node("b", { streams: 5 })] }), 7);
});

test("nothing is claimed of who is silent, or of a link on which nothing is sent", () => {
  const check = (more, state, health) => assert.deepEqual([stateOf(node("a", more)), healthOf(node("a", more))], [state, health]);
  check({}, "clear", 0.8);
  check({ is_silent: true }, "stale", null);
  check({ state: "idle", health: 1 }, "idle", null);
  check({ state: null, health: null }, "idle", null);
  check({ state: undefined, health: undefined }, "idle", null);
  check({ state: "stalled", health: 0 }, "stalled", 0);
});

test("the past ends at the right edge, and a gap is a gap", () => {
  const box = { width: 300, height: 60, top: 60, slots: 4 };
  assert.equal(path([], box), "");
  assert.equal(path([null], box), "");
  assert.equal(path([30, 60], box), "M200 30L300 0");
  assert.equal(path([30, null, 60], box), "M100 30L100 30M300 0L300 0");
  assert.equal(path([0, 60, null, 15], { ...box, filled: true }), "M0 60L0 60L100 0L100 60ZM300 60L300 45L300 60Z");
  // What is beyond the top stays within the picture.
  assert.equal(path([900, 900], box), "M200 0L300 0");
});

test("a demand beyond all measure does not press the rest flat", () => {
  const history = { demand_tps: [5000, null], given_tps: [60, null] };
  assert.equal(highest(history, 60), 75);
  assert.equal(highest(history, null), 6250);
  assert.equal(highest({ demand_tps: [], given_tps: [] }, null), 1.25);
});
