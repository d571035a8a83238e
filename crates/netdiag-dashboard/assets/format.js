// Numbers, units and times as text. A figure space pads nothing here: tabular numerals do, in the style sheet.
//
// Invariant: null is a dash in every function, never zero: what was not measured is not shown as good.

export const NONE = "–";

export function fixed(value, digits) {
  return isNumber(value) ? value.toFixed(digits) : NONE;
}

export function count(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en") : NONE;
}

// Three significant digits, as many as a round trip time is worth.
export function milliseconds(value) {
  if (!isNumber(value)) return NONE;
  return value >= 10_000 ? `${significant(value / 1000)} s` : `${significant(value)} ms`;
}

export const microseconds = (value) => milliseconds(isNumber(value) ? value / 1000 : null);

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

// The local time of day; with the date where a day is too short to name the time.
export function clock(seconds, { withSeconds = true, withDate = false } = {}) {
  if (!isNumber(seconds)) return NONE;
  const date = new Date(seconds * 1000);
  const pad = (value) => String(value).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), ...(withSeconds ? [date.getSeconds()] : [])].map(pad).join(":");
  return withDate ? `${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}` : time;
}

export function significant(value) {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1) return value.toFixed(2);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

function scaled(value, units) {
  if (!isNumber(value)) return NONE;
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= 999.5 && step < units.length - 1) {
    rest /= 1000;
    step++;
  }
  return `${step === 0 ? Math.round(rest) : significant(rest)} ${units[step]}`;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
