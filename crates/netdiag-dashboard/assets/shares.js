// The fleet without its elements: which nodes are listed, what part of an engine each has, and its last minutes as lines.
//
// Invariant: what is not known is null and no zero, and a gap in the past is a gap in the picture.

// Nodes of an engine that are listed one by one, and engines.
export const MOST_NODES = 100;
export const MOST_ENGINES = 50;

// Those that are silent first, since they are what somebody may have to do something about; else in the order of their names, in
// which they come.
export function firstNodes(nodes) {
  const silent = nodes.filter((node) => node.is_silent);
  const heard = nodes.filter((node) => !node.is_silent);
  return [...silent, ...heard].slice(0, MOST_NODES);
}

export const streamsOf = (engine) => engine.nodes.reduce((sum, node) => sum + node.streams, 0);

// A node's part of what the engine generates, 0 to 1; null where nobody has said how much that is.
export const partOf = (node, engine) => (engine.capacity_tps > 0 ? node.given_tps / engine.capacity_tps : null);

// Of a node's row. What was last heard of one that is silent may be quite wrong by now.
export const stateOf = (node) => (node.is_silent ? "stale" : (node.state ?? "idle"));

// Health is a presumption where nothing is being sent.
export const healthOf = (node) => (node.is_silent || ["idle", "stale", null, undefined].includes(node.state) ? null : node.health);

// How high a picture of an engine's past reaches. What is asked for can be many times what there is, which would press the rest flat
// against the bottom, so of that no more is seen than that it is more.
export function highest({ demand_tps, given_tps }, capacity) {
  const values = capacity === null ? [...demand_tps, ...given_tps] : [...given_tps, capacity];
  return 1.25 * Math.max(1, ...values.filter((value) => value !== null));
}

// Values as a path of SVG from left to right in a box of so many units, the newest at the right edge; `slots` places in all, so that
// a short past does not look like a long one. With `filled` it goes down to the bottom at both ends of each piece.
export function path(values, { width, height, top, slots, filled = false }) {
  const step = width / Math.max(1, slots - 1);
  const first = slots - values.length;
  const short = (number) => String(Math.round(number * 100) / 100);
  const x = (index) => short((first + index) * step);
  const y = (value) => short(height - (Math.min(value, top) / top) * height);
  const out = [];
  let start = null;
  values.forEach((value, index) => {
    if (value === null) return;
    if (start === null) {
      start = index;
      out.push(filled ? `M${x(index)} ${height}L${x(index)} ${y(value)}` : `M${x(index)} ${y(value)}`);
    } else out.push(`L${x(index)} ${y(value)}`);
    const isLast = index + 1 === values.length || values[index + 1] === null;
    if (!isLast) return;
    if (filled) out.push(`L${x(index)} ${height}Z`);
    // A moment alone is a dot.
    else if (start === index) out.push(`L${x(index)} ${y(value)}`);
    start = null;
  });
  return out.join("");
}
