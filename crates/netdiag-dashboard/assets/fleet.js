// The fleet: who leads, and each engine with what is asked of it, what it gives, its last minutes, and its nodes.
//
// Invariant: the fleet is asked only while this view is on screen, one request at a time, and of an answer that does not come nothing is
// shown as if it were so now.

import { ask, byId, icon, make, setAttribute, setIcon, setParts, setText } from "./dom.js";
import { NONE, count, duration, fixed } from "./format.js";
import { failure, t, word } from "./i18n.js";
import { MOST_ENGINES, MOST_NODES, firstNodes, healthOf, highest, partOf, path, stateOf, streamsOf } from "./shares.js";

const ASK_SECONDS = 1;
// Of a picture of an engine's past, in units of its own; it is stretched to where it stands.
const BOX = { width: 300, height: 60 };
// Of it, as its label says.
const PAST_SECONDS = 300;
// An answer that is older is not shown as how it is.
const OLD_MS = 3000;

const percent = (part) => (part === null ? NONE : `${fixed(100 * part, 1)} %`);

// What a node has comes before the details, for which a narrow screen has to be scrolled.
const CELLS = {
  node: (node) => node.node,
  state: (node) => (node.is_silent ? t("fleet.silent") : node.state ? word("state", node.state) : NONE),
  given: (node) => fixed(node.given_tps, 1),
  part: (node, engine) => percent(partOf(node, engine)),
  streams: (node) => count(node.streams),
  health: (node) => fixed(healthOf(node), 2),
  demand: (node) => fixed(node.demand_tps, 1),
  age: (node) => duration(node.age_seconds),
};

export function makeFleet() {
  const engines = new Map();
  // Whether there is a fleet to ask; null until the server has said so.
  let available = null;
  let shown = false;
  let view = null;
  let answered = 0;
  let error = null;
  let timer = null;
  let asking = false;

  async function look() {
    clearTimeout(timer);
    if (view !== null && performance.now() - answered > OLD_MS) {
      // Nobody looked meanwhile, or it has not answered.
      view = null;
      render();
    }
    if (!shown || !available || asking || document.hidden) return;
    asking = true;
    try {
      view = await ask("api/fleet");
      answered = performance.now();
      error = null;
    } catch (caught) {
      error = caught;
    }
    asking = false;
    timer = setTimeout(look, 1000 * ASK_SECONDS);
    render();
  }

  function render() {
    byId("nav-fleet").hidden = available !== true;
    const now = available && error === null ? view : null;
    tell(now);
    byId("fleet-facts").hidden = now === null;
    byId("fleet-engines").hidden = now === null;
    if (now === null) {
      setText(byId("fleet-count"), "");
      return;
    }
    tellLeader(now);
    const listed = now.engines.slice(0, MOST_ENGINES);
    const nodes = new Set(now.engines.flatMap((engine) => engine.nodes.map((node) => node.node)));
    const values = { engines: counted("engine", now.engines.length), nodes: counted("node", nodes.size), most: count(MOST_ENGINES) };
    setText(byId("fleet-count"), t(now.engines.length > listed.length ? "fleet.cut" : "fleet.count", values));
    const names = listed.map((engine) => engine.engine);
    for (const name of engines.keys()) if (!names.includes(name)) engines.delete(name);
    for (const name of names) if (!engines.has(name)) engines.set(name, makeEngine(name));
    const cards = names.map((name) => engines.get(name));
    const host = byId("fleet-engines");
    if (cards.length !== host.children.length || cards.some((card, at) => host.children[at] !== card.element)) {
      host.replaceChildren(...cards.map((card) => card.element));
    }
    listed.forEach((engine, at) => fill(cards[at], engine));
  }

  // What keeps the view from being whole, if anything does.
  function tell(now) {
    const about = available === false ? "without" : error ? "error" : now && !now.is_connected ? "apart" : now && now.engines.length === 0 ? "none" : null;
    byId("fleet-notice").hidden = about === null;
    byId("fleet-how").hidden = about !== "without";
    if (about === null) return;
    setText(byId("fleet-notice-title"), t(`fleet.${about}.title`));
    setParts(byId("fleet-notice-text"), about === "error" ? failure(error) : [{ text: t(`fleet.${about}.text`) }]);
  }

  function tellLeader(now) {
    const leads = now.leader !== null;
    setText(byId("fleet-leader"), leads ? now.leader : t("fleet.leader.none"));
    setAttribute(byId("fleet-leader").parentElement, "data-on", String(!leads));
    setIcon(byId("fleet-leader").parentElement, leads ? "ok" : "alert");
    setText(byId("fleet-since"), duration(now.leader_seconds));
    setText(byId("fleet-lease"), duration(now.lease_seconds));
    setText(byId("fleet-bus"), t(now.is_connected ? "fleet.bus.yes" : "fleet.bus.no"));
    setAttribute(byId("fleet-bus").parentElement, "data-on", String(!now.is_connected));
    setIcon(byId("fleet-bus").parentElement, now.is_connected ? "ok" : "alert");
  }

  function makeEngine(name) {
    const fact = (key, unit) => ({ key, name: make("dt"), out: make("b", { textContent: NONE }), unit: unit && make("span", { className: "unit" }) });
    const facts = { given: fact("given", true), demand: fact("demand", true), capacity: fact("capacity", true), level: fact("level", false) };
    const load = make("span", { className: "load" });
    const about = make("p", { className: "soft" });
    const fillBar = make("i");
    const mark = make("b");
    const past = makePast();
    const heads = Object.keys(CELLS).map((key) => ({ key, head: make("th", { scope: "col", className: `f-${key}` }) }));
    const body = make("tbody");
    const table = make("table", { className: "plain" }, make("thead", {}, make("tr", {}, ...heads.map(({ head }) => head))), body);
    const title = make("h2", { id: `fleet-engine-${name}` }, name);
    const scroll = make("div", { className: "fleet-scroll", tabIndex: 0 }, table);
    for (const [key, value] of [["role", "region"], ["aria-labelledby", title.id]]) scroll.setAttribute(key, value);
    const gauge = make("div", { className: "gauge" }, fillBar, mark);
    gauge.setAttribute("aria-hidden", "true");
    const element = make("section", { className: "engine" },
      make("header", {}, title, load, about),
      make("div", { className: "engine-now" },
        make("div", {},
          make("dl", {}, ...Object.values(facts).map((each) => make("div", {}, each.name, make("dd", {}, each.out, ...(each.unit ? [" ", each.unit] : []))))),
          gauge,
        ),
        past.element,
      ),
      scroll,
    );
    const card = { element, facts, load, about, gauge, fillBar, mark, past, heads, body, table, scroll, rows: [] };
    translateEngine(card);
    return card;
  }

  function fill(card, engine) {
    const { facts } = card;
    setText(facts.given.out, fixed(engine.given_tps, 1));
    setText(facts.demand.out, fixed(engine.demand_tps, 1));
    setText(facts.capacity.out, engine.capacity_tps === null ? t("fleet.capacity.none") : fixed(engine.capacity_tps, 1));
    facts.capacity.unit.hidden = engine.capacity_tps === null;
    setText(facts.level.out, engine.level === null ? t("fleet.level.none") : fixed(engine.level, 2));
    const silent = engine.nodes.filter((node) => node.is_silent).length;
    const values = { nodes: counted("node", engine.nodes.length), streams: counted("stream", streamsOf(engine)), silent: count(silent), most: count(MOST_NODES) };
    const cut = engine.nodes.length > MOST_NODES ? ` · ${t("fleet.who.cut", values)}` : "";
    setText(card.about, t(silent > 0 ? "fleet.who.silent" : "fleet.who", values) + cut);
    const load = engine.capacity_tps === null ? "unknown" : engine.level === null ? "enough" : "full";
    setAttribute(card.load, "data-load", load);
    setText(card.load, t(`fleet.load.${load}`));
    card.gauge.hidden = engine.capacity_tps === null;
    const top = Math.max(engine.capacity_tps ?? 0, engine.given_tps, 1);
    card.fillBar.style.width = `${(100 * engine.given_tps) / top}%`;
    card.mark.style.left = `${(100 * (engine.capacity_tps ?? 0)) / top}%`;
    draw(card.past, engine);
    const nodes = firstNodes(engine.nodes);
    card.scroll.hidden = nodes.length === 0;
    while (card.rows.length < nodes.length) card.rows.push(makeRow(card));
    card.rows.forEach((row, at) => {
      row.element.hidden = at >= nodes.length;
      if (at < nodes.length) fillRow(card, row, nodes[at], engine);
    });
  }

  function makeRow(card) {
    const bar = make("i", { className: "part" });
    const before = { state: make("i", { className: "shape" }), part: make("span", { className: "bar" }, bar) };
    const cells = card.heads.map(({ key }) => make("td", { className: `f-${key}` }, ...(before[key] ? [before[key]] : []), make("span")));
    const element = make("tr", {}, ...cells);
    card.body.append(element);
    return { element, bar, texts: cells.map((cell) => cell.lastChild) };
  }

  function fillRow(card, { element, bar, texts }, node, engine) {
    setAttribute(element, "data-state", stateOf(node));
    element.classList.toggle("silent", node.is_silent);
    bar.style.width = `${100 * Math.min(1, partOf(node, engine) ?? 0)}%`;
    card.heads.forEach(({ key }, column) => setText(texts[column], CELLS[key](node, engine)));
  }

  function translateEngine(card) {
    for (const fact of Object.values(card.facts)) {
      setText(fact.name, t(`fleet.${fact.key}`));
      if (fact.unit) setText(fact.unit, t("unit.tps"));
    }
    for (const { key, head } of card.heads) setText(head, t(`fleet.column.${key}`));
    for (const { key, text } of card.past.keys) setText(text, t(`fleet.past.${key}`));
  }

  document.addEventListener("visibilitychange", look);

  return {
    setHello(hello) {
      available = hello.has_fleet === true;
      render();
      look();
    },
    show(visible) {
      shown = visible;
      look();
    },
    translate() {
      for (const card of engines.values()) translateEngine(card);
      render();
    },
  };
}

// "1 node", "2 nodes": of the words that are counted here, English has two forms.
const counted = (what, number) => t(number === 1 ? `fleet.${what}` : `fleet.${what}s`, { count: count(number) });

function makePast() {
  const svg = icon("", "past");
  svg.replaceChildren();
  for (const [key, value] of [["viewBox", `0 0 ${BOX.width} ${BOX.height}`], ["preserveAspectRatio", "none"]]) svg.setAttribute(key, value);
  const paths = Object.fromEntries(["area", "given", "demand", "limit"].map((name) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", `past-${name}`);
    svg.append(element);
    return [name, element];
  }));
  const keys = [["given", "rate"], ["demand", "target"], ["limit", "limit"]].map(([key, colour]) => ({ key, colour, text: make("span") }));
  const legend = keys.map(({ key, colour, text }) => make("span", {}, make("i", { className: key === "given" ? "key" : "key dashed", data: { colour } }), text));
  const span = make("span");
  keys.push({ key: "span", text: span });
  return { element: make("figure", {}, svg, make("figcaption", { className: "facts" }, ...legend, span)), paths, keys };
}

function draw({ paths }, { history, capacity_tps }) {
  const slots = Math.round(PAST_SECONDS / history.every_seconds);
  const box = { ...BOX, top: highest(history, capacity_tps), slots };
  const [given, demand] = [history.given_tps.slice(-slots), history.demand_tps.slice(-slots)];
  setAttribute(paths.area, "d", path(given, { ...box, filled: true }));
  setAttribute(paths.given, "d", path(given, box));
  setAttribute(paths.demand, "d", path(demand, box));
  setAttribute(paths.limit, "d", capacity_tps === null ? "" : path(Array(slots).fill(capacity_tps), box));
}
