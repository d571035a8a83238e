// Where the vertical axis of a chart begins and ends. A fitted range would move with every row and make noise look like news, so
// axes start at zero and end at round numbers.
//
// Invariant: a range is never empty and holds every value it is given, also when there are none.

const ROUND = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

// The smallest round number that is not below `value`.
export function roundUp(value) {
  if (!(value > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  // The last step holds every mantissa, up to rounding.
  return (ROUND.find((step) => step * power >= value) ?? 10) * power;
}

// `least` keeps a quiet chart from filling itself with its own noise.
export const fromZero = (least) => (_, __, max) => [0, Math.max(least, roundUp((max ?? 0) * 1.04))];

// A little beyond the values, on a grid of three steps a decade.
export function logarithmic(_, min, max) {
  if (!(max > 0)) return [1, 100];
  const step = (value, round, beyond) => 10 ** (round(Math.log10(value) * 3 + beyond) / 3);
  return [step(min > 0 ? min : max, Math.floor, -0.3), step(max, Math.ceil, 0.3)];
}

// The labels of an axis; one beyond `edge` is left empty. `place` tells where a value is.
export const labelsWithin = (splits, texts, { place, edge }) => splits.map((at, index) => (place(at) <= edge ? texts[index] : ""));

// How far labels of time are apart at least, in pixels: they are shorter where they are minutes apart and tell no seconds.
export function timeSpace(width, seconds, { dated }) {
  // Within few days the date stands at few of them.
  const [long, short] = dated ? [96, seconds > 2 * 86_400 ? 76 : 56] : [76, 48];
  return (60 * width) / seconds < long ? short : long;
}
