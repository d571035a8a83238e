// Which span of time the charts show: a range that ends now, or at the moment of a pause, or what was zoomed to.
//
// Invariant: a window is never empty or backwards, whatever was dragged, and leaving zoom and pause always leads back to now.

export const RANGES = [60, 300, 3600, "all"];
export const LIVE = { range: 300, pausedAt: null, zoom: null };

// Nothing is sampled faster than a few times a second.
const SHORTEST = 1;

export function windowOf(view, oldest, newest) {
  if (view.zoom) return view.zoom;
  const to = view.pausedAt ?? newest ?? 0;
  const from = view.range === "all" ? Math.min(oldest ?? to, to - SHORTEST) : to - view.range;
  return { from, to };
}

export const isLive = (view) => view.pausedAt === null && view.zoom === null;
export const withRange = (view, range) => ({ ...view, range, zoom: null });
export const paused = (view, newest) => ({ ...view, pausedAt: newest });
export const resumed = (view) => ({ ...view, pausedAt: null, zoom: null });

export function zoomed(view, from, to) {
  const [low, high] = from < to ? [from, to] : [to, from];
  const lack = Math.max(0, SHORTEST - (high - low)) / 2;
  return { ...view, zoom: { from: low - lack, to: high + lack } };
}

// Zooms about the middle: a factor below 1 shows less time.
export function scaled(view, window, factor) {
  const middle = (window.from + window.to) / 2;
  const half = ((window.to - window.from) / 2) * factor;
  return zoomed(view, middle - half, middle + half);
}

// Moves by a share of the window, to the left if it is negative.
export function panned(view, window, share) {
  const by = (window.to - window.from) * share;
  return zoomed(view, window.from + by, window.to + by);
}
