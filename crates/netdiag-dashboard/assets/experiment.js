// The experiment: while it runs, its phases as a band and the arms beside each other, figures above and charts with all arms in one
// below; afterwards its report. The colours are the report's, so that an arm keeps its own from one to the other.
//
// Invariant: what is shown is rebuilt from the events alone, so a page opened in the middle shows the same as one open from the start.

import { makeChart } from "./chart.js";
import uPlot from "./uplot.js";
import { lightOf } from "./connection.js";
import { byId, icon, make, setAttribute, setIcon, setText } from "./dom.js";
import { downsample } from "./downsample.js";
import { atAxis, count, countAtAxis, duration, fixed, milliseconds } from "./format.js";
import { t } from "./i18n.js";
import { emptyArm, faults, progress, share, withTicks } from "./phases.js";
import { fromZero } from "./scales.js";

// The report has four colours too, and gives further arms the last one.
const COLOURS = 4;
const tps = (value) => fixed(value, 1);

const CHARTS = [
  { column: "generated_tps", title: () => t("chart.generated"), unit: () => t("unit.tps.all"), format: tps, tick: atAxis, scale: () => fromZero(5) },
  { column: "current_tps", title: () => t("rate.label"), unit: () => t("unit.tps.each"), format: tps, tick: atAxis, scale: () => fromZero(5) },
  { column: "rtt_p95", title: () => t("arm.rtt"), unit: () => "ms", format: milliseconds, tick: atAxis, scale: () => fromZero(1) },
  { column: "health", title: () => t("chart.health"), format: (value) => fixed(value, 2), tick: atAxis, scale: () => () => [0, 1.04] },
  { column: "retrans", title: () => t("chart.retrans"), unit: () => t("series.retrans"), format: count, tick: countAtAxis, scale: () => fromZero(4) },
];

export function makeExperiment() {
  let experiment = null;
  let told = false;
  let connection = "connecting";
  let arms = [];
  let cards = [];
  let charts = [];
  let shown = false;
  let asked = false;

  function start(next) {
    const same = experiment !== null && isSame(experiment, next);
    experiment = next;
    told = true;
    if (!same) {
      arms = next.arms.map(emptyArm);
      build();
    }
    show();
  }

  function build() {
    for (const chart of charts) chart.remove();
    byId("arm-charts").replaceChildren();
    cards = experiment.arms.map((arm, index) => makeCard(arm, index));
    byId("arms").replaceChildren(...cards.map((card) => card.element));
    charts = CHARTS.map((definition, at) => {
      const host = make("section", { className: "chart" });
      byId("arm-charts").append(host);
      const series = experiment.arms.map((arm, index) => ({
        column: String(index), ...nameOf(definition, arm), colour: colourOf(index), format: definition.format, width: 2,
      }));
      return makeChart(host, { ...definition, series }, { sync: "arms", time: false, labelled: at === CHARTS.length - 1 });
    });
    for (const chart of charts) chart.translate();
    byId("band").replaceChildren(
      ...experiment.phases.map((phase) => {
        const part = make("span", { className: phase.fault ? "fault" : "", textContent: phase.name, title: phase.name });
        part.style.left = share(experiment, phase.from_seconds);
        part.style.width = share(experiment, phase.to_seconds - phase.from_seconds);
        return part;
      }),
      make("i", { className: "playhead" }),
    );
  }

  function makeCard(arm, index) {
    const value = (key, format, column) => ({ key, format, column, out: make("dd", { textContent: "–" }), name: make("dt") });
    const facts = [
      value("arm.health", (health) => fixed(health, 2), "health"),
      value("arm.rtt", milliseconds, "rtt_p95"),
      value("arm.retrans", count, "retrans"),
    ];
    const light = make("span", { className: "mini", data: { on: "unknown" } }, icon("unknown"), make("span"));
    const rate = make("span", { textContent: "–" });
    const unit = make("span", { className: "unit" });
    const paced = make("small");
    const all = make("small");
    const advice = make("p", { className: "facts" }, make("span"), make("b", { textContent: "–" }));
    const element = make("article", { className: "arm", data: { arm: index } },
      make("header", {}, make("h2", {}, make("i", { className: "key", data: { colour: colourOf(index).slice(2) } }), arm.name), paced, light),
      make("p", { className: "big" }, rate, " ", unit),
      all,
      advice,
      make("dl", {}, ...facts.map((fact) => make("div", {}, fact.name, fact.out))),
    );
    return { element, light, rate, unit, paced, all, advice, facts, arm };
  }

  function show() {
    byId("experiment-none").hidden = experiment !== null;
    byId("experiment-body").hidden = experiment === null;
    if (!experiment) {
      for (const id of ["experiment-lead", "experiment-progress"]) setText(byId(id), "");
      return;
    }
    setText(byId("experiment-lead"), `${experiment.scenario}: ${experiment.description}`);
    const { at, phase, left } = progress(experiment, arms);
    const total = duration(experiment.seconds);
    const words = { at: duration(at), total, left: duration(left) };
    setText(byId("experiment-progress"), experiment.running ? t("experiment.running", words) : t("experiment.over", words));
    showBand(at, phase);
    cards.forEach((card, index) => showCard(card, arms[index]));
    byId("report").hidden = !experiment.report;
    // The report has the same charts, and figures that are more than the last tick.
    for (const id of ["band", "arms", "arm-charts"]) byId(id).hidden = experiment.report;
    // Loaded once it is seen: the report is larger than this page.
    if (experiment.report && shown && !byId("report-frame").src) byId("report-frame").src = "api/experiment/report";
    if (!experiment.report) byId("report-frame").removeAttribute("src");
    request();
  }

  function showBand(at, phase) {
    const band = byId("band");
    [...band.querySelectorAll("span")].forEach((part, index) => part.classList.toggle("now", experiment.running && index === phase));
    band.querySelector(".playhead").style.left = share(experiment, at);
    const names = experiment.phases.map((each) => each.name).join(", ");
    setAttribute(band, "aria-label", t("experiment.band", { phases: names, now: experiment.phases[phase]?.name ?? "–" }));
  }

  function showCard(card, arm) {
    const newest = (column) => arm[column].at(-1) ?? null;
    setText(card.rate, tps(newest("generated_tps")));
    setText(card.all, t("arm.generated", { streams: experiment.streams }));
    const [label, advised] = card.advice.children;
    setText(label, t(card.arm.paced ? "arm.recommended" : "arm.recommended.ignored"));
    setText(advised, `${tps(newest("current_tps"))} ${t("unit.tps")}`);
    for (const fact of card.facts) setText(fact.out, fact.format(newest(fact.column)));
    const on = lightOf(connection, newest("anomaly"));
    setAttribute(card.light, "data-on", on);
    setIcon(card.light, { true: "alert", false: "ok", unknown: "unknown" }[on]);
    setText(card.light.lastChild, t(`light.${on}`));
    setText(card.paced, t(card.arm.paced ? "arm.paced" : "arm.unpaced"));
    setText(card.unit, t("unit.tps"));
    for (const fact of card.facts) setText(fact.name, t(fact.key));
  }

  function request() {
    if (asked || !shown || document.hidden || !experiment || experiment.report) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (shown && !document.hidden) draw();
    });
  }

  function draw() {
    const window = { from: 0, to: experiment.seconds };
    const buckets = charts[0].plotWidth();
    CHARTS.forEach(({ column }, at) => {
      const tables = arms.map((arm) => downsample(arm, [column], { ...window, buckets }));
      const newest = Object.fromEntries(arms.map((arm, index) => [index, arm[column].at(-1) ?? null]));
      charts[at].draw(uPlot.join(tables), window, { newest, faults: faults(experiment) });
    });
  }

  return {
    start,
    // The server tells all of it again after each connect, unless it is another server that has none.
    forget() {
      arms = arms.map(emptyArm);
      told = false;
    },
    historyIsComplete() {
      if (!told) experiment = null;
      show();
    },
    setConnection(value) {
      if (value === connection) return;
      connection = value;
      if (shown) show();
    },
    ticks(batch) {
      if (!arms[batch.arm]) return;
      arms[batch.arm] = withTicks(arms[batch.arm], batch);
      if (shown) show();
    },
    show(visible) {
      shown = visible;
      if (visible) show();
    },
    redraw() {
      for (const chart of charts) chart.redraw();
    },
    translate() {
      for (const chart of charts) chart.translate();
      show();
    },
  };
}

// Whether two events speak of the same experiment; one that runs again is another.
function isSame(before, after) {
  if (after.running && !before.running) return false;
  return before.scenario === after.scenario && JSON.stringify(before.arms) === JSON.stringify(after.arms);
}

// An arm in the legend of a chart. The rate that is recommended to an arm without pacing is not what it does.
function nameOf({ column }, arm) {
  if (column !== "current_tps" || arm.paced) return { label: () => arm.name };
  return { label: () => `${arm.name} · ${t("arm.ignored")}`, dash: [5, 4] };
}

const colourOf = (index) => `--arm${Math.min(index, COLOURS - 1)}`;
