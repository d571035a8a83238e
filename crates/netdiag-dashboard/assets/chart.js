// One chart: uPlot under a heading with a legend that tells values, those at the cursor or else the newest. Charts that share a `sync`
// key share the cursor. What is drawn comes in as columns that are already as few as pixels.
//
// Invariant: a chart asks for no time and keeps no rows; drawing the same data twice gives the same picture.

import uPlot from "./uplot.js";
import { colour } from "./colours.js";
import { make, setAttribute, setText } from "./dom.js";
import { needsDate, timesAlong } from "./format.js";
import { t } from "./i18n.js";
import { labelsWithin, timeSpace } from "./scales.js";

// Wide enough for "1,000 Mbit/s" in no language and "1000" in all; the same for every chart, so that their times align.
const AXIS_WIDTH = 52;
const FONT = "12px system-ui, sans-serif";

// `series`: [{ column, label: () => text, colour: "--name", format, width, dash, fill, bars }]; `scale(log)`: uPlot's range function;
// `tick`: text of a value at the axis; `unit` and `note` (what shading means): () => text; `time`: whether x is Unix time; `labelled`: whether x is written below.
export function makeChart(host, definition, { sync, time = true, labelled = true, onZoom, onReset, onCursor }) {
  // Room for half of the last label of an axis of seconds; its charts end where it does.
  const side = time ? 8 : 18;
  const title = make("h3");
  const legend = make("ul", { className: "legend" });
  const plot = make("div", { className: "plot" });
  plot.setAttribute("role", "img");
  const none = make("p", { className: "none", hidden: true });
  host.append(make("div", { className: "chart-head" }, title, legend), plot, none);
  const values = definition.series.map((series) => {
    const key = make("i", { className: series.dash ? "key dashed" : "key", data: { colour: series.colour.slice(2) } });
    const entry = { label: make("span"), value: make("b", { textContent: "–" }) };
    legend.append(make("li", {}, key, entry.label, " ", entry.value));
    return entry;
  });

  const note = definition.note && make("span");
  if (note) legend.append(make("li", {}, make("i", { className: "swatch" }), note));

  let shown = { data: [[0], ...definition.series.map(() => [null])], newest: {}, spans: [], faults: [], log: false };
  let u = null;

  function tell() {
    const index = u?.cursor.idx;
    const atCursor = index !== null && index !== undefined && u.cursor.left >= 0;
    definition.series.forEach((series, at) => {
      const value = atCursor ? shown.data[at + 1][index] : shown.newest[series.column];
      setText(values[at].value, series.format(value));
    });
  }

  function describe() {
    const newest = definition.series.map((series) => `${series.label()} ${series.format(shown.newest[series.column])}`);
    setAttribute(plot, "aria-label", `${definition.title()}; ${t("chart.newest")}: ${newest.join(", ")}`);
  }

  function build() {
    u?.destroy();
    u = new uPlot(options(), shown.data, plot);
  }

  function options() {
    const soft = () => colour("--soft");
    const grid = { stroke: () => colour("--grid"), width: 1 };
    return {
      width: Math.max(50, plot.clientWidth),
      height: Math.max(50, plot.clientHeight),
      padding: [8, side, labelled ? 0 : 4, 0],
      legend: { show: false },
      cursor: {
        y: false,
        sync: { key: sync },
        points: { size: 7 },
        drag: { x: Boolean(onZoom), y: false, setScale: false, dist: 6 },
        bind: { dblclick: () => () => onReset?.() },
      },
      scales: {
        x: { time, range: (_, min, max) => [min, max] },
        y: { distr: shown.log ? 3 : 1, range: definition.scale(shown.log) },
      },
      axes: [
        { stroke: soft, grid, ticks: { show: false }, font: FONT, size: labelled ? 24 : 4, gap: 4, space: time ? (chart, _, min, max, width) => timeSpace(width, max - min, { dated: isDated(chart) }) : 56, values: xLabels },
        { stroke: soft, grid, ticks: { show: false }, font: FONT, size: AXIS_WIDTH, gap: 6, space: 24, values: yLabels, filter: shown.log ? logLabels : undefined },
      ],
      series: [{}, ...definition.series.map(drawn)],
      bands: definition.bands?.map((band) => ({ series: band.series, fill: () => colour(band.fill) })) ?? [],
      hooks: {
        drawClear: [shade],
        setCursor: [tell, (chart) => onCursor?.(shown.data[0][chart.cursor.idx] ?? null)],
        setSelect: [select],
      },
    };
  }

  function xLabels(chart, splits, _, __, step) {
    // One that would be cut off at the right edge is left out. Where that edge is, the scale knows before the browser has laid it out.
    const edge = chart.valToPos(chart.scales.x.max, "x");
    const place = (at) => chart.valToPos(at, "x");
    const texts = time ? timesAlong(splits, step, { dated: isDated(chart) }) : splits.map((at) => `${at} s`);
    // A label at the end of seconds has its room beside the plot.
    return labelled ? labelsWithin(splits, texts, { place, edge: edge - (time ? (isDated(chart) ? 44 : 26) : 0) }) : splits.map(() => "");
  }

  const isDated = ({ scales: { x } }) => needsDate({ from: x.min, to: x.max }, Date.now() / 1000);

  function yLabels(_, splits) {
    return splits.map((value) => (value === null ? null : definition.tick(value)));
  }

  // Every tenth, or 1, 2 and 5 where a decade is high enough for them.
  function logLabels(chart, splits) {
    const decade = Math.abs(chart.valToPos(10, "y") - chart.valToPos(1, "y"));
    const wanted = decade > 60 ? [1, 2, 5] : [1];
    return splits.map((value) => (wanted.includes(Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9))) ? value : null));
  }

  function drawn(series) {
    return {
      stroke: () => colour(series.colour),
      width: series.width ?? 1.6,
      dash: series.dash,
      fill: series.fill && (() => colour(series.fill)),
      paths: series.bars ? uPlot.paths.bars({ size: [0.7, 9, 2] }) : undefined,
      points: { show: series.bars ? false : undefined, size: 4, fill: () => colour(series.colour) },
    };
  }

  function shade(chart) {
    const { ctx, bbox } = chart;
    const paint = (list, fill) => {
      ctx.fillStyle = fill;
      for (const [from, to] of list) {
        const left = Math.max(bbox.left, chart.valToPos(from, "x", true));
        const right = Math.min(bbox.left + bbox.width, chart.valToPos(to, "x", true));
        // A span of one row in an hour must still be seen.
        if (right >= bbox.left && left <= bbox.left + bbox.width) ctx.fillRect(left, bbox.top, Math.max(2, right - left), bbox.height);
      }
    };
    ctx.save();
    paint(shown.faults, colour("--fault"));
    paint(shown.spans, colour("--anomaly-span"));
    ctx.restore();
  }

  function select(chart) {
    const { left, width } = chart.select;
    if (width < 1) return;
    const [from, to] = [chart.posToVal(left, "x"), chart.posToVal(left + width, "x")];
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    onZoom(from, to);
  }

  new ResizeObserver(() => {
    const size = { width: plot.clientWidth, height: plot.clientHeight };
    if (u && size.width > 0 && (size.width !== u.width || size.height !== u.height)) u.setSize(size);
  }).observe(plot);

  return {
    plot,
    title: definition.title,
    unit: definition.unit,
    series: definition.series,
    canvas: () => u?.ctx.canvas ?? null,
    plotWidth: () => Math.max(50, plot.clientWidth - AXIS_WIDTH - side),

    // `data` as uPlot wants it, `window` {from, to}; the rest is optional.
    draw(data, window, { newest = {}, spans = [], faults = [], log = false } = {}) {
      const rebuild = !u || log !== shown.log;
      shown = { data, newest, spans, faults, log };
      if (rebuild) build();
      u.batch(() => {
        u.setData(data, false);
        u.setScale("x", { min: window.from, max: window.to });
      });
      none.hidden = data.slice(1).some((column) => column.some((value) => value !== null && value !== undefined));
      tell();
      describe();
    },

    // After a change of theme or of the scale's bounds.
    redraw() {
      u?.redraw();
    },

    translate() {
      setText(title, definition.title());
      if (definition.unit) title.append(make("small", { textContent: ` ${definition.unit()}` }));
      if (note) setText(note, definition.note());
      definition.series.forEach((series, at) => setText(values[at].label, series.label()));
      setText(none, t("chart.none"));
      describe();
    },

    remove() {
      u?.destroy();
    },
  };
}
