// Rows made as few as a chart has pixel columns. Each column of pixels keeps the minimum and the maximum of each series, in the
// order in which they came, so the line covers the same pixels as all the rows would, and a spike of one sample stays as high.
//
// Invariant: the result has at most two points for each bucket and one for each gap, and no value that the rows don't have.

// Columns for uPlot: times first, then the named columns. Where two rows are further apart than `gapAfter(time)` seconds, a null
// lies between them, so that no line is drawn over what nobody measured.
export function downsample(columns, names, { from, to, buckets, gapAfter = () => Infinity }) {
  const out = [[], ...names.map(() => [])];
  const { t } = columns;
  const width = (to - from) / buckets;
  const every = t.length <= 2 * buckets || !(width > 0);
  for (let start = 0; start < t.length; ) {
    if (start > 0 && t[start] - t[start - 1] > gapAfter(t[start])) {
      out[0].push((t[start - 1] + t[start]) / 2);
      names.forEach((_, series) => out[series + 1].push(null));
    }
    // Buckets lie at multiples of their width, not at the edge of the window, so that points don't flicker as it moves on.
    const bucket = Math.floor(t[start] / width);
    let end = start + 1;
    if (!every) while (end < t.length && Math.floor(t[end] / width) === bucket && t[end] - t[end - 1] <= gapAfter(t[end])) end++;
    if (end - start === 1) {
      out[0].push(t[start]);
      names.forEach((name, series) => out[series + 1].push(columns[name][start]));
    } else {
      out[0].push(t[start], t[end - 1]);
      names.forEach((name, series) => out[series + 1].push(...extremes(columns[name], start, end)));
    }
    start = end;
  }
  return out;
}

function extremes(values, start, end) {
  let least = -1;
  let most = -1;
  for (let row = start; row < end; row++) {
    const value = values[row];
    if (value === null) continue;
    if (least < 0 || value < values[least]) least = row;
    if (most < 0 || value > values[most]) most = row;
  }
  if (least < 0) return [null, null];
  return least <= most ? [values[least], values[most]] : [values[most], values[least]];
}

// The spans of time in which `flags` is above zero, as [from, to]. Each reaches to the row after it: a flag holds until the next.
export function spans(times, flags) {
  const found = [];
  let from = null;
  times.forEach((time, index) => {
    if (flags[index] > 0) from ??= time;
    else if (from !== null) {
      found.push([from, time]);
      from = null;
    }
  });
  if (from !== null) found.push([from, times.at(-1)]);
  return found;
}

// How far apart rows may be before the time between them counts as unmeasured: a few intervals, or what thinning leaves between
// the rows of an earlier day. The ages are those at which both the server and the page may have thinned.
export function gapRule(newest, interval) {
  const usual = Math.max(5, 4 * (interval ?? 0));
  return (time) => {
    const age = newest - time;
    if (age > 20 * 3600) return Math.max(usual, 400);
    return age > 1800 ? Math.max(usual, 45) : usual;
  };
}
