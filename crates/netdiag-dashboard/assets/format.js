// Numbers, units and times as text. Units are symbols of the SI, which need no translation.
//
// Invariant: null is a dash in every function, never zero: what was not measured is not shown as good.

export const NONE = "–";

export function fixed(value, digits) {
  return isNumber(value) ? value.toFixed(digits) : NONE;
}

// Made once: toLocaleString() makes one anew for each number, which a table of flows feels.
const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return isNumber(value) ? COUNT.format(value) : NONE;
}

// Three significant digits, as many as a round trip time is worth.
export function milliseconds(value) {
  if (!isNumber(value)) return NONE;
  return value >= 10_000 ? `${significant(value / 1000)} s` : `${significant(value)} ms`;
}

// A value at an axis: no digits that say nothing.
export const atAxis = (value) => String(Number(significant(value)));

// Of what is counted there are no halves, so a place between two numbers has no label.
export const countAtAxis = (value) => (Number.isInteger(value) ? count(value) : "");

export const microseconds = (value) => milliseconds(isNumber(value) ? value / 1000 : null);

// How long something has waited already: milliseconds up to a second.
export const waiting = (us) => (isNumber(us) && us >= 1e6 ? duration(us / 1e6) : microseconds(us));

export const bits = (value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"]);

// Whole units above a minute: nobody needs the tenths of a second of an hour.
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// The local time of day; with the date where a day is too short to name the time, and with so many digits of the second's fraction.
export function clock(seconds, { withSeconds = true, withDate = false, digits = 0 } = {}) {
  if (!isNumber(seconds)) return NONE;
  const unit = 10 ** digits;
  // Rounded first: 0.3 s is a little less than that as a sum of tenths.
  const parts = Math.round(seconds * unit);
  const whole = digits > 0 ? Math.floor(parts / unit) : seconds;
  const date = new Date(whole * 1000);
  const pad = (value) => String(value).padStart(2, "0");
  const fraction = digits > 0 ? `.${String(parts - whole * unit).padStart(digits, "0")}` : "";
  const time = [date.getHours(), date.getMinutes(), ...(withSeconds ? [date.getSeconds()] : [])].map(pad).join(":") + fraction;
  return withDate ? `${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}` : time;
}

// Whether times in this span need their date: it is not all of today.
export function needsDate({ from, to }, now) {
  const day = (seconds) => new Date(seconds * 1000).toDateString();
  return day(from) !== day(now) || day(to) !== day(now);
}

// How many digits of a second tell apart times that are so far from each other.
export const digitsFor = (step) => (step > 0 && step < 0.995 ? Math.min(3, Math.ceil(-Math.log10(step) - 1e-9)) : 0);

// Times along an axis, `step` apart: the date only where it is news, at the first and after each midnight.
export function timesAlong(times, step, { dated }) {
  const day = (seconds) => new Date(seconds * 1000).toDateString();
  return times.map((at, index) => {
    const withDate = dated && (index === 0 || day(at) !== day(times[index - 1]));
    return clock(at, { withSeconds: step < 60, withDate, digits: digitsFor(step) });
  });
}

// The same moment in a file's name, where it sorts and no character needs quoting: 20261126-055631.
export function fileTime(seconds) {
  const date = new Date(seconds * 1000);
  return `${date.getFullYear()}${clock(seconds, { withDate: true }).replace(/[-:]/g, "").replace(" ", "-")}`;
}

export function significant(value) {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1) return value.toFixed(2);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// The same for large values, with the letter of their power of ten.
export function atAxisScaled(value) {
  const { rest, step } = powers(value, 5);
  return `${atAxis(rest)}${step > 0 ? ` ${" kMGT"[step]}` : ""}`;
}

function scaled(value, units) {
  if (!isNumber(value)) return NONE;
  const { rest, step } = powers(value, units.length);
  return `${step === 0 ? Math.round(rest) : significant(rest)} ${units[step]}`;
}

function powers(value, steps) {
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= 999.5 && step < steps - 1) {
    rest /= 1000;
    step++;
  }
  return { rest, step };
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
