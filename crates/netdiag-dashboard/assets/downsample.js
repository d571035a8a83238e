// Rows made as few as a chart has pixel columns. Each column of pixels keeps the minimum and the maximum of each series, in the
// order in which they came, so the line covers the same pixels as all the rows would, and a spike of one sample stays as high.
//
// Invariant: the result has at most two points for each bucket and one for each gap, and no value that the rows don't have.

// Columns for uPlot: times first, then the named columns. Where rows are missing a null lies between the others, so that no line is
// drawn over what nobody measured.
export function downsample(columns, names, { from, to, buckets }) {
  const out = [[], ...names.map(() => [])];
  const { t } = columns;
  const width = (to - from) / buckets;
  const every = t.length <= 2 * buckets || !(width > 0);
  for (let start = 0, gap = false; start < t.length; ) {
    if (gap) {
      out[0].push((t[start - 1] + t[start]) / 2);
      names.forEach((_, series) => out[series + 1].push(null));
    }
    // Buckets lie at multiples of their width, not at the edge of the window, so that points don't flicker as it moves on.
    const bucket = Math.floor(t[start] / width);
    let end = start + 1;
    gap = isGap(t, end);
    while (!every && !gap && end < t.length && Math.floor(t[end] / width) === bucket) gap = isGap(t, ++end);
    if (end - start === 1) {
      out[0].push(t[start]);
      names.forEach((name, series) => out[series + 1].push(columns[name][start]));
    } else {
      out[0].push(t[start], t[end - 1]);
      names.forEach((name, series) => pushExtremes(out[series + 1], columns[name], start, end));
    }
    start = end;
  }
  return out;
}

function pushExtremes(out, values, start, end) {
  let least = -1;
  let most = -1;
  for (let row = start; row < end; row++) {
    const value = values[row];
    if (value === null) continue;
    if (least < 0 || value < values[least]) least = row;
    if (most < 0 || value > values[most]) most = row;
  }
  if (least < 0) out.push(null, null);
  else if (least <= most) out.push(values[least], values[most]);
  else out.push(values[most], values[least]);
}

// The spans of time in which `flags` is above zero, as [from, to]. Each reaches to the row after it, since a flag holds until the
// next, but not into time that nobody measured.
export function spans(times, flags) {
  const found = [];
  let from = null;
  times.forEach((time, index) => {
    if (flags[index] > 0) from ??= time;
    else if (from !== null) {
      found.push([from, flags[index] === null ? times[index - 1] : time]);
      from = null;
    }
  });
  if (from !== null) found.push([from, times.at(-1)]);
  return found;
}

// An interval that failed now and then is no gap.
const SHORTEST_GAP_SECONDS = 3;
const NEIGHBOURS = 8;

// Whether rows are missing before this one: its step is more than four times the upper quartile of the steps around it. They are
// asked, rather than the sampling interval, because history comes thinned by its age; in pairs, hence the quartile.
export function isGap(times, index) {
  const step = times[index] - times[index - 1];
  if (!(step > SHORTEST_GAP_SECONDS)) return false;
  const first = Math.max(1, index - NEIGHBOURS);
  const last = Math.min(times.length - 1, index + NEIGHBOURS);
  let lacking = Math.ceil((last - first) / 4);
  for (let at = first; at <= last && lacking > 0; at++) {
    if (at !== index && 4 * (times[at] - times[at - 1]) >= step) lacking--;
  }
  return lacking > 0;
}
