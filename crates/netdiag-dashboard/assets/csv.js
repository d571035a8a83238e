// The rows shown, as a CSV file by RFC 4180: names first, lines end in CRLF, and what holds a comma, a quote or a line break is
// quoted. Units are those of the columns' names on the wire: Unix seconds, milliseconds, segments, tokens/s, bit/s.
//
// Invariant: null is an empty field, so that it reads back as missing and not as zero.

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
