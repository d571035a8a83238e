// Numbers, times, CSV and messages as they are read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { csv } from "../../assets/csv.js";
import * as format from "../../assets/format.js";
import { message, preferred, speak, word } from "../../assets/i18n.js";
import { MESSAGES } from "../../assets/messages.js";

const asset = (name) => readFileSync(new URL(`../../assets/${name}`, import.meta.url), "utf8");

test("what was not measured is a dash everywhere", () => {
  const all = [format.count, format.milliseconds, format.microseconds, format.waiting, format.bits, format.bytes, format.duration, format.clock, format.significant];
  for (const text of [...all.map((each) => each(null)), format.fixed(undefined, 1), format.fixed(NaN, 1)]) assert.equal(text, "–");
});

test("numbers have the digits they are worth", () => {
  const check = (got, want) => assert.equal(got, want);
  check(format.fixed(31.24, 1), "31.2");
  check(format.milliseconds(0.456), "0.46 ms");
  check(format.milliseconds(21.034), "21.0 ms");
  check(format.milliseconds(999.6), "1000 ms");
  check(format.milliseconds(12_345), "12.3 s");
  check(format.microseconds(21_034), "21.0 ms");
  check(format.waiting(900_000), "900 ms");
  check(format.waiting(5_291_000), "5.3 s");
  check(format.bits(0), "0 bit/s");
  check(format.bits(999.6), "1.00 kbit/s");
  check(format.bits(8_123_456), "8.12 Mbit/s");
  check(format.bytes(183_224), "183 kB");
  check(format.count(10_000), "10,000");
  check(format.atAxis(25), "25");
  check(format.countAtAxis(2.5), "");
  check(format.countAtAxis(2500), "2,500");
  check(format.atAxis(0.5), "0.5");
  check(format.atAxisScaled(15_000_000), "15 M");
  check(format.atAxisScaled(0), "0");
});

test("durations get coarser as they grow", () => {
  const check = (seconds, want) => assert.equal(format.duration(seconds), want);
  check(-1, "0.0 s");
  check(0.21, "0.2 s");
  check(59.9, "59 s");
  check(192, "3 min 12 s");
  check(7500, "2 h 5 min");
  check(200_000, "2 d 7 h");
});

test("the clock is local, with the date if asked for", () => {
  const noon = new Date(2026, 6, 4, 12, 34, 56).getTime() / 1000;
  assert.equal(format.clock(noon), "12:34:56");
  assert.equal(format.clock(noon, { withSeconds: false }), "12:34");
  assert.equal(format.clock(noon, { withSeconds: false, withDate: true }), "07-04 12:34");
});

test("times that would look alike have fractions", () => {
  const at = new Date(2026, 6, 4, 6, 2, 31).getTime() / 1000;
  const times = [0, 0.2, 0.4, 0.6, 0.8, 1].map((more) => at + more);
  assert.deepEqual(format.timesAlong(times, 0.2, { dated: false }), ["06:02:31.0", "06:02:31.2", "06:02:31.4", "06:02:31.6", "06:02:31.8", "06:02:32.0"]);
  assert.deepEqual([60, 1, 0.5, 0.1, 0.05, 0.001].map(format.digitsFor), [0, 0, 1, 1, 2, 3]);
  assert.equal(format.clock(at + 0.96, { digits: 1 }), "06:02:32.0");
});

test("a date is told where the day is not today, or ends", () => {
  const time = (day, hour, minute = 0) => new Date(2026, 6, day, hour, minute).getTime() / 1000;
  const now = time(4, 12);
  assert.equal(format.needsDate({ from: time(4, 1), to: time(4, 11) }, now), false);
  assert.equal(format.needsDate({ from: time(3, 23), to: time(4, 1) }, now), true);
  assert.equal(format.needsDate({ from: time(3, 1), to: time(3, 2) }, now), true);
  const night = [time(3, 23, 30), time(4, 0), time(4, 0, 30)];
  assert.deepEqual(format.timesAlong(night, 1800, { dated: true }), ["07-03 23:30", "07-04 00:00", "00:30"]);
});

test("CSV follows RFC 4180, and null is empty", () => {
  const columns = { t: [1.5, 2], rtt_min: [null, 20.25], state: ["clear", 'a "b", c\n'] };
  assert.equal(csv(columns, ["t", "rtt_min", "state"]), 't,rtt_min,state\r\n1.5,,clear\r\n2,20.25,"a ""b"", c\n"\r\n');
  assert.equal(csv({ t: [] }, ["t"]), "t\r\n");
});

test("each message has both languages with the same names in braces", () => {
  const names = (text) => (text.match(/\{\w+\}/g) ?? []).sort();
  for (const [key, texts] of Object.entries(MESSAGES)) {
    assert.equal(texts.length, 2, key);
    assert.ok(texts.every(Boolean), key);
    assert.deepEqual(names(texts[0]), names(texts[1]), key);
  }
});

test("each key in the markup has a message, and English is what stands there", () => {
  const html = asset("index.html");
  for (const [, key] of html.matchAll(/data-i18n(?:-\w+)?="([^"]+)"/g)) assert.ok(MESSAGES[key], key);
  for (const [, key, text] of html.matchAll(/data-i18n="([^"]+)"[^>]*>([^<]+)</g)) assert.equal(text, message("en", key), key);
});

test("each message that a module names exists", () => {
  for (const name of ["app", "overview", "panel", "chart", "streams", "experiment", "machine"]) {
    for (const [, key] of asset(`${name}.js`).matchAll(/\bt\("([^"]+)"/g)) assert.ok(MESSAGES[key], `${name}.js: ${key}`);
  }
});

test("a word of another version's server is shown as it is", () => {
  assert.equal(word("cause", "path"), "path");
  assert.equal(word("state", "congealed"), "congealed");
  assert.equal(word("cause", "toString"), "toString");
  speak("zh");
  assert.equal(word("state", "clear"), "畅通");
  speak("en");
  for (const name of ["streams", "overview", "machine"]) assert.doesNotMatch(asset(`${name}.js`), /t\(`(?:state|cause|check)\./, name);
});

test("the login page works under any path", () => {
  assert.match(asset("login.html"), /action="(?:\.\/)?login"/);
});

test("the reader's first language that is spoken here wins", () => {
  assert.equal(preferred(["zh-Hant-TW", "en"]), "zh");
  assert.equal(preferred(["de-DE", "en-GB", "zh"]), "en");
  assert.equal(preferred(["fr"]), "en");
  assert.throws(() => message("en", "no.such.key"), /no\.such\.key/);
  assert.equal(message("zh", "streams.count", { shown: 2, total: 9 }), "9 条流中的 2 条");
});
