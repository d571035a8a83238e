// Wiring: the feed on one side, the views on the other, and the controls between. What anything looks like or means is decided
// elsewhere.
//
// Invariant: the address names the view, so a reload and a link show the same one.

import { forgetColours } from "./colours.js";
import { netData } from "./csv.js";
import { byId, save, setText } from "./dom.js";
import { makeExperiment } from "./experiment.js";
import { openFeed } from "./feed.js";
import { makeFleet } from "./fleet.js";
import { clock, fileTime } from "./format.js";
import { LANGUAGES, language, preferred, speak, t, translate } from "./i18n.js";
import { makeMachine } from "./machine.js";
import { makeOverview } from "./overview.js";
import { makePanel } from "./panel.js";
import { picture } from "./png.js";
import { remember, remembered, takeView } from "./preferences.js";
import { Rows } from "./rows.js";
import { actionOf } from "./shortcuts.js";
import { makeStreams } from "./streams.js";
import { RANGES } from "./view.js";

const THEMES = ["auto", "light", "dark"];

const root = document.documentElement;
const rows = new Rows();
const overview = makeOverview();
const panel = makePanel(rows, {
  onViewChange: (view) => remember("range", String(view.range)),
  onScaleChange: (log) => remember("scale", log ? "log" : "linear"),
});
const streams = makeStreams();
const fleet = makeFleet();
const experiment = makeExperiment();
const machine = makeMachine();
const views = { overview: panel, streams, fleet, experiment, machine };

function route() {
  const wanted = location.hash.replace(/^#\/?/, "");
  const current = Object.hasOwn(views, wanted) ? wanted : "overview";
  for (const [name, view] of Object.entries(views)) {
    byId(`view-${name}`).hidden = name !== current;
    const link = document.querySelector(`#nav [data-view="${name}"]`);
    if (name === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    view.show(name === current);
  }
  byId("mini").hidden = current === "overview";
}

function setLanguage(wanted) {
  speak(wanted);
  root.lang = wanted === "zh" ? "zh-CN" : "en";
  translate(document, wanted);
  setText(byId("lang"), t("language.other"));
  byId("lang").lang = wanted === "zh" ? "en" : "zh";
  setText(byId("theme"), t(`theme.${byId("theme").dataset.theme}`));
  for (const view of [overview, panel, streams, fleet, experiment, machine]) view.translate();
}

function setTheme(wanted) {
  root.dataset.theme = wanted;
  byId("theme").dataset.theme = wanted;
  setText(byId("theme"), t(`theme.${wanted}`));
  repaint();
}

function repaint() {
  forgetColours();
  for (const chart of panel.charts) chart.redraw();
  experiment.redraw();
}

function stamp() {
  return fileTime(Date.now() / 1000);
}

function exportCsv() {
  const { from, to } = panel.window();
  const text = netData(rows.slice(from, to));
  offer(new Blob([text], { type: "text/csv;charset=utf-8" }), `netdiag-${stamp()}.csv`);
}

async function exportPng() {
  const { from, to } = panel.window();
  const subtitle = `${clock(from, { withDate: true })} – ${clock(to, { withDate: true })}`;
  offer(await picture(panel.charts, { title: "NetDiag-LLM", subtitle, shading: t("series.anomaly") }), `netdiag-${stamp()}.png`);
}

function offer(blob, name) {
  save(blob, name);
  setText(byId("announcer"), t("say.exported", { name }));
}

const actions = {
  "pause": () => panel.togglePause(),
  "zoom.in": () => panel.zoom(0.5),
  "zoom.out": () => panel.zoom(2),
  "pan.left": () => panel.pan(-0.25),
  "pan.right": () => panel.pan(0.25),
  "reset": () => panel.reset(),
  "scale": () => panel.toggleLog(),
  "help": () => byId("help").showModal(),
};

function listen() {
  const click = (id, action) => byId(id).addEventListener("click", action);
  click("pause", actions.pause);
  click("reset-zoom", actions.reset);
  click("help-open", actions.help);
  click("export-csv", exportCsv);
  click("export-png", exportPng);
  click("lang", () => {
    setLanguage(LANGUAGES[(LANGUAGES.indexOf(language()) + 1) % LANGUAGES.length]);
    remember("language", language());
  });
  click("theme", () => {
    setTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
    remember("theme", root.dataset.theme);
  });
  click("skip", (event) => {
    // The hash names the view, so a jump by hash would leave it.
    event.preventDefault();
    byId("main").focus();
  });
  for (const button of document.querySelectorAll("[data-range]")) {
    actions[`range.${button.dataset.range}`] = () => panel.setRange(rangeOf(button.dataset.range));
    button.addEventListener("click", actions[`range.${button.dataset.range}`]);
  }
  for (const button of document.querySelectorAll("[data-scale]")) button.addEventListener("click", () => panel.setLog(button.dataset.scale === "log"));
  addEventListener("keydown", (event) => {
    const action = actionOf(event);
    if (action === null || (action !== "help" && byId("view-overview").hidden)) return;
    event.preventDefault();
    actions[action]();
  });
  addEventListener("hashchange", route);
  addEventListener("visibilitychange", panel.request);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
}

const rangeOf = (text) => RANGES.find((range) => String(range) === text) ?? RANGES[1];

let version = null;

function connect() {
  openFeed(rows, {
    onHello(hello) {
      // After an update of the server this page is the old one.
      if (version !== null && version !== hello.version) location.reload();
      version = hello.version;
      experiment.forget();
      overview.setHello(hello);
      streams.setHello(hello);
      fleet.setHello(hello);
      machine.setHello(hello);
      if (hello.mode === "experiment" && location.hash === "") location.replace("#/experiment");
    },
    onRows(batch) {
      if (batch.t.length > 0) overview.setNewest({ t: batch.t.at(-1), flows: batch.flows.at(-1), stalled: batch.stalled.at(-1), measured: batch.rtt_avg.some((rtt) => rtt !== null) });
      panel.arrived();
    },
    onNow(hint) {
      panel.setMaxTps(hint.max_tps);
      overview.setHint(hint);
    },
    onLive() {
      panel.request();
      experiment.historyIsComplete();
      // Two frames: in the first the charts are drawn.
      requestAnimationFrame(() => requestAnimationFrame(() => (root.dataset.ready = "true")));
    },
    onExperiment(told) {
      experiment.start(told);
      overview.setExperiment(told);
    },
    onArm: experiment.ticks,
    onStatus(status) {
      overview.setStatus(status);
      experiment.setConnection(status.connection);
    },
  });
}

// Asked before anything is shown: showing the panel remembers what it shows.
const range = remembered("range", RANGES.map(String), "300");
const scale = remembered("scale", ["linear", "log"], "linear");
const view = takeView();
if (location.hash === "" && view !== "") location.replace(view);
setTheme(remembered("theme", THEMES, "auto"));
setLanguage(remembered("language", LANGUAGES, preferred(navigator.languages ?? [navigator.language])));
panel.setRange(rangeOf(range));
panel.setLog(scale === "log");
listen();
route();
connect();
