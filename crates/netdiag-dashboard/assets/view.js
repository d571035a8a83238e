// Which span of time the charts show: a range that ends now, or at the moment of a pause, or what was zoomed to.
//
// Invariant: a window is never empty or backwards, whatever was dragged, and leaving zoom and pause always leads back to now. What was
// zoomed or moved to lies in the history and a little before it, never after now.

export const RANGES = [60, 300, 3600, "all"];
export const LIVE = { range: 300, pausedAt: null, zoom: null };

// Nothing is sampled faster than a few times a second.
const SHORTEST = 1;
const FEWEST = 3;
// How much is seen before the history, as a share of it.
const MARGIN = 0.05;

export function windowOf(view, oldest, newest) {
  if (view.zoom) return view.zoom;
  const to = view.pausedAt ?? newest ?? 0;
  const from = view.range === "all" ? Math.min(oldest ?? to, to - SHORTEST) : to - view.range;
  return { from, to };
}

// What can be looked at, given the times of the newest few rows: from a little before the history, or from where the chosen range
// begins, until now, and not less than a few samples.
export function boundsOf(view, oldest, newest, times = []) {
  const to = newest ?? 0;
  const margin = (to - (oldest ?? to)) * MARGIN;
  const from = Math.min((oldest ?? to) - margin, view.range === "all" ? to : to - view.range);
  const steps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
  const least = Math.max(SHORTEST, FEWEST * (steps[steps.length >> 1] ?? 0));
  return { from: Math.min(from, to - least), to, least };
}

export const isLive = (view) => view.pausedAt === null && view.zoom === null;
export const withRange = (view, range) => ({ ...view, range, zoom: null });
export const paused = (view, newest) => ({ ...view, pausedAt: newest });
export const resumed = (view) => ({ ...view, pausedAt: null, zoom: null });

export function zoomed(view, from, to, bounds) {
  if (!Number.isFinite(from) || !Number.isFinite(to)) return view;
  const width = Math.min(Math.max(Math.abs(to - from), bounds.least), bounds.to - bounds.from);
  const middle = (from + to) / 2;
  const start = Math.min(Math.max(middle - width / 2, bounds.from), bounds.to - width);
  return { ...view, zoom: { from: start, to: start + width } };
}

// Zooms about the middle: a factor below 1 shows less time.
export function scaled(view, window, factor, bounds) {
  const middle = (window.from + window.to) / 2;
  const half = ((window.to - window.from) / 2) * factor;
  return zoomed(view, middle - half, middle + half, bounds);
}

// Moves by a share of the window, to the left if it is negative.
export function panned(view, window, share, bounds) {
  const by = (window.to - window.from) * share;
  return zoomed(view, window.from + by, window.to + by, bounds);
}
