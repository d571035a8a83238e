// Numbers, times, CSV and messages as they are read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { csv, netData } from "../../assets/csv.js";
import * as format from "../../assets/format.js";
import { failure, message, preferred, reasonIn, speak, word } from "../../assets/i18n.js";
import { MESSAGES, REASONS } from "../../assets/messages.js";

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

test("the exported rows are a net_data.csv", () => {
  const rows = {
    t: [1795666080.6254, 2], rtt_min: [16.645, null], rtt_avg: [20, null], rtt_p95: [0.00001, null], retrans: [3, 0], health: [0.5, 1], anomaly: [1, 0],
    current_tps: [31.2, 80], target_tps: [28, 80], throughput_bps: [80000.4, null], flows: [8, null], stalled: [0, null], state: ["constrained", "idle"],
  };
  assert.equal(netData(rows), [
    "timestamp,min_rtt_us,avg_rtt_us,p95_rtt_us,retrans_count,throughput_bps,flows,stalled_flows,health,anomaly,current_tps,target_tps,state",
    "1795666080.625,16645,20000,0.1,3,80000,8,0,0.5,1,31.2,28,constrained",
    "2.000,,,,0,,,,1,0,80,80,idle",
    "",
  ].join("\r\n"));
});

test("the server's reasons are Chinese on a Chinese page, and what is unknown there is marked as English", () => {
  const plain = (text) => reasonIn("zh", text).map(({ text, lang }) => (lang ? `<${text}>` : text)).join("");
  const check = (text, want) => assert.equal(plain(text), want);
  check("path: p95 RTT 438 ms, usually 0.9 ms, 0.0 % retransmitted, no model yet", "链路：p95 RTT 438 ms，通常为 0.9 ms，重传 0.0 %，尚无模型");
  check("no round trip was measured, 1 segment retransmitted, 50 % of flows stalled", "未测到往返时间，重传 1 个报文段，50 % 的流停滞");
  check("path: data is outstanding and no ACK arrives", "链路：数据已发出，却没有收到 ACK");
  check("reader: receive window full, nothing was taken", "读取方：接收窗口已满，没有读取任何数据");
  check("reader: receive window full; p95 RTT 20 ms, usually 20 ms", "读取方：接收窗口已满；p95 RTT 20 ms，通常为 20 ms");
  check("path: 12 tokens are out and no ACK for 1.2 s", "链路：已发出 12 个 token，1.2 s 未收到 ACK");
  check("pacer: 12.0 tok/s are this stream's share", "节奏控制：此流分得 12.0 token/秒");
  check("telemetry is 5.0 s old", "遥测数据是 5.0 s 之前的");
  check("no telemetry yet", "尚无遥测数据");
  check("no flow to [2001:db8::1]:9 is known", "没有已知的到 [2001:db8::1]:9 的流");
  check("the hint server does not answer: http://h:9: dial failed, os error 111", "提示服务器没有应答：<http://h:9: dial failed, os error 111>");
  check("http://h:9000: has closed the connection", "<http://h:9000>：已关闭连接");
  check("something else, no model yet", "<something else>，尚无模型");
  check("toString", "<toString>");
  check("", "");
  assert.deepEqual(reasonIn("en", "path: slow"), [{ text: "path: slow", lang: "en" }]);
});

test("each phrase of a reason has both languages, is found, and needs none of the marks that part phrases", () => {
  const names = (text) => (text.match(/\{\w+\}/g) ?? []).sort();
  for (const [english, chinese] of REASONS) {
    assert.deepEqual(names(english), names(chinese), english);
    assert.doesNotMatch(english, /[,;:] /);
    assert.deepEqual(reasonIn("zh", english.replace(/\{\w+\}/g, "7")), [{ text: chinese.replace(/\{\w+\}/g, "7") }]);
  }
});

test("an error is a sentence of the page, or the server's own English words", () => {
  assert.deepEqual(failure(Object.assign(new Error("x"), { kind: "network" })), [{ text: "The server cannot be reached." }]);
  assert.deepEqual(failure(new Error("no telemetry")), [{ text: "no telemetry", lang: "en" }]);
});

test("a file's name has the whole date", () => {
  assert.equal(format.fileTime(new Date(2026, 10, 26, 5, 56, 31).getTime() / 1000), "20261126-055631");
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
  for (const name of ["app", "overview", "panel", "chart", "streams", "gateway", "fleet", "experiment", "machine"]) {
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
