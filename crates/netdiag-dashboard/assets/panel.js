// The charts of the overview: five under each other with one time axis and one cursor, so that cause and effect stand in a line. They
// are drawn when the browser draws, once for all rows that came in between, and not at all while nobody can see them.
//
// Invariant: all charts show the same window and the same points in time, downsampled once.

import { makeChart } from "./chart.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import { downsample, spans } from "./downsample.js";
import { atAxis, atAxisScaled, bits, clock, count, countAtAxis, fixed, milliseconds, needsDate } from "./format.js";
import { t } from "./i18n.js";
import { newestOf } from "./rows.js";
import { fromZero, logarithmic } from "./scales.js";
import * as views from "./view.js";

const NAMES = ["rtt_min", "rtt_avg", "rtt_p95", "retrans", "health", "anomaly", "current_tps", "target_tps", "throughput_bps"];
const tps = (value) => fixed(value, 1);

function definitions(maxTps) {
  return [
    {
      key: "rtt", title: () => t("chart.rtt"), unit: () => "ms", tick: atAxis,
      scale: (log) => (log ? logarithmic : fromZero(1)),
      bands: [{ series: [1, 3], fill: "--rtt-fill" }],
      series: [
        { column: "rtt_p95", label: () => t("series.p95"), colour: "--rtt-p95", format: milliseconds, width: 2 },
        { column: "rtt_avg", label: () => t("series.avg"), colour: "--rtt-avg", format: milliseconds, width: 1.4 },
        { column: "rtt_min", label: () => t("series.min"), colour: "--rtt-min", format: milliseconds, width: 1.4 },
      ],
    },
    {
      key: "retrans", title: () => t("chart.retrans"), tick: countAtAxis, scale: () => fromZero(4),
      series: [
        { column: "retrans", label: () => t("series.retrans"), colour: "--retrans", format: count, width: 0, fill: "--retrans", bars: true },
      ],
    },
    {
      key: "health", title: () => t("chart.health"), tick: atAxis, scale: () => () => [0, 1.04],
      note: () => t("series.anomaly"),
      series: [
        { column: "health", label: () => t("series.health"), colour: "--health", format: (value) => fixed(value, 2), width: 2, fill: "--health-fill" },
      ],
    },
    {
      key: "rate", title: () => t("chart.rate"), unit: () => t("unit.tps"), tick: atAxis,
      scale: () => (chart, min, max) => (max <= maxTps() ? [0, maxTps() * 1.04] : fromZero(1)(chart, min, max)),
      series: [
        { column: "current_tps", label: () => t("series.current"), colour: "--rate", format: tps, width: 2.2, fill: "--rate-fill" },
        { column: "target_tps", label: () => t("series.target"), colour: "--target", format: tps, width: 1.6, dash: [5, 4] },
      ],
    },
    {
      key: "throughput", title: () => t("chart.throughput"), unit: () => "bit/s", tick: atAxisScaled,
      scale: () => fromZero(1000),
      series: [
        { column: "throughput_bps", label: () => t("series.throughput"), colour: "--throughput", format: bits, width: 1.6, fill: "--throughput-fill" },
      ],
    },
  ];
}

export function makePanel(rows, { onViewChange, onScaleChange }) {
  let view = views.LIVE;
  let log = false;
  let maxTps = 0;
  let shown = false;
  let asked = false;
  let cursorAt = null;
  const host = byId("charts");
  const all = definitions(() => maxTps);
  const charts = all.map((definition, index) => {
    const figure = make("section", { className: "chart", data: { chart: definition.key } });
    host.append(figure);
    const labelled = index === all.length - 1;
    return makeChart(figure, definition, { sync: "overview", labelled, onZoom: (from, to) => change(views.zoomed(view, from, to, bounds())), onReset: reset, onCursor });
  });

  const window = () => views.windowOf(view, rows.oldest, rows.newest ?? Date.now() / 1000);

  function bounds() {
    const newest = rows.newest ?? Date.now() / 1000;
    return views.boundsOf(view, rows.oldest, newest, rows.slice(newest, newest, { names: ["t"], margin: 8 }).t);
  }

  function request() {
    if (asked || !shown || document.hidden) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (shown && !document.hidden) draw();
    });
  }

  function draw() {
    const { from, to } = window();
    const buckets = charts[0].plotWidth();
    const columns = rows.slice(from, to, { names: ["t", ...NAMES], margin: 1 });
    const [times, ...values] = downsample(columns, NAMES, { from, to, buckets });
    const data = Object.fromEntries(NAMES.map((name, index) => [name, values[index]]));
    const newest = newestOf(columns, NAMES, to);
    const shaded = spans(times, data.anomaly);
    charts.forEach((chart, index) => {
      const logarithmically = all[index].key === "rtt" && log;
      const drawn = chart.series.map(({ column }) => (logarithmically ? data[column].map(positive) : data[column]));
      chart.draw([times, ...drawn], { from, to }, { newest, spans: shaded, log: logarithmically });
    });
    tell();
    performance.clearMarks("netdiag:drawn");
    performance.mark("netdiag:drawn");
  }

  function onCursor(time) {
    if (time === cursorAt) return;
    cursorAt = time;
    tell();
  }

  function tell() {
    const { from, to } = window();
    const withDate = needsDate({ from, to }, Date.now() / 1000);
    const digits = to - from < 10 ? 1 : 0;
    const parts = [`${clock(from, { withDate, digits })} – ${clock(to, { withDate, digits })}`];
    if (view.pausedAt !== null) parts.push(t("paused"));
    if (cursorAt !== null) parts.push(t("cursor", { time: clock(cursorAt, { withDate, digits }) }));
    setText(byId("window"), rows.newest === null ? "" : parts.join(" · "));
  }

  function change(next) {
    view = next;
    for (const button of document.querySelectorAll("[data-range]")) {
      setAttribute(button, "aria-pressed", String(!view.zoom && button.dataset.range === String(view.range)));
    }
    byId("reset-zoom").hidden = view.zoom === null;
    setAttribute(byId("pause"), "aria-pressed", String(view.pausedAt !== null));
    setText(byId("pause"), t(view.pausedAt !== null ? "resume" : "pause"));
    onViewChange(view);
    request();
  }

  function reset() {
    change(views.resumed(view));
  }

  return {
    charts,
    window,
    reset,
    request,
    // New rows: a picture that is held still has no use for them.
    arrived() {
      if (views.isLive(view)) request();
    },
    setRange: (range) => change(views.withRange(view, range)),
    togglePause: () => change(view.pausedAt === null ? views.paused(view, rows.newest) : views.resumed(view)),
    zoom: (factor) => change(views.scaled(view, window(), factor, bounds())),
    pan: (share) => change(views.panned(view, window(), share, bounds())),
    setLog(wanted) {
      log = wanted;
      onScaleChange(log);
      for (const button of document.querySelectorAll("[data-scale]")) {
        setAttribute(button, "aria-pressed", String((button.dataset.scale === "log") === log));
      }
      request();
    },
    toggleLog() {
      this.setLog(!log);
    },
    setMaxTps(value) {
      maxTps = value ?? 0;
    },
    show(visible) {
      shown = visible;
      request();
    },
    translate() {
      for (const chart of charts) chart.translate();
      change(view);
    },
  };
}

// A logarithmic axis has no zero.
const positive = (value) => (value !== null && value <= 0 ? 0.001 : value);
