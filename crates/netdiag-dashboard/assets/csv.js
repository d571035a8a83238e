// The rows shown, as a CSV file by RFC 4180: names first, lines end in CRLF, and what holds a comma, a quote or a line break is
// quoted. Names and units are those of net_data.csv, so that whatever reads that file reads this one; what is judged comes after them.
//
// Invariant: null is an empty field, so that it reads back as missing and not as zero.

// [name in the file, column, number as it is written]. As in net_data.csv, zero microseconds would mean "none".
const micros = (ms) => Math.max(0.1, Number((ms * 1000).toFixed(1)));
const FIELDS = [
  ["timestamp", "t", (seconds) => seconds.toFixed(3)],
  ["min_rtt_us", "rtt_min", micros],
  ["avg_rtt_us", "rtt_avg", micros],
  ["p95_rtt_us", "rtt_p95", micros],
  ["retrans_count", "retrans", Math.round],
  ["throughput_bps", "throughput_bps", Math.round],
  ["flows", "flows", Math.round],
  ["stalled_flows", "stalled", Math.round],
  ["health", "health"],
  ["anomaly", "anomaly"],
  ["current_tps", "current_tps"],
  ["target_tps", "target_tps"],
  ["state", "state"],
];

export function netData(rows) {
  const written = (value, write) => (value === null || value === undefined || !write ? value : write(value));
  const columns = Object.fromEntries(FIELDS.map(([name, column, write]) => [name, rows[column].map((value) => written(value, write))]));
  return csv(columns, FIELDS.map(([name]) => name));
}

export function csv(columns, names) {
  const lines = [names.map(field).join(",")];
  for (let row = 0; row < columns[names[0]].length; row++) lines.push(names.map((name) => field(columns[name][row])).join(","));
  return lines.join("\r\n") + "\r\n";
}

function field(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
