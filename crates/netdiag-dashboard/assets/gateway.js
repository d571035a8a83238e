// The streams that a gateway passes on, in a table of their own above the kernel's flows. Those that are held come first, then the oldest,
// and beyond a few screens they are only counted: who looks for one of thousands asks the gateway itself.
//
// Invariant: the gateway is asked only while this view is on screen, one request at a time.

import { ask, byId, make, setAttribute, setParts, setText } from "./dom.js";
import { NONE, count, milliseconds, waiting } from "./format.js";
import { failure, t, word } from "./i18n.js";
import { MOST_STREAMS, firstStreams, streamState } from "./table.js";

const ASK_SECONDS = 1;

const CELLS = {
  id: (stream) => stream.id,
  state: (stream) => t(`gateway.${streamState(stream)}`),
  cause: (stream) => (stream.cause ? word("cause", stream.cause) : NONE),
  peer: (stream) => stream.peer,
  model: (stream) => stream.model ?? NONE,
  engine: (stream) => stream.engine,
  age: (stream) => waiting(stream.age_seconds * 1e6),
  ttft: (stream) => (stream.ttft_seconds === null ? NONE : milliseconds(stream.ttft_seconds * 1e3)),
  generated: (stream) => count(stream.generated),
  sent: (stream) => count(stream.sent),
};

export function makeGateway() {
  const table = byId("gateway-table");
  const body = table.tBodies[0];
  const rows = [];
  let available = false;
  let shown = false;
  let answer = null;
  let error = null;
  let timer = null;
  let asking = false;

  const heads = Object.keys(CELLS).map((key) => {
    const head = make("th", { scope: "col", className: `g-${key}` });
    table.tHead.rows[0].append(head);
    return { key, head };
  });

  async function look() {
    clearTimeout(timer);
    if (!shown || !available || asking || document.hidden) return;
    asking = true;
    try {
      answer = await ask("api/gateway");
      error = null;
    } catch (caught) {
      error = caught;
    }
    asking = false;
    timer = setTimeout(look, 1000 * ASK_SECONDS);
    render();
  }

  function render() {
    byId("gateway").hidden = !available;
    if (!available) return;
    const streams = firstStreams(answer?.streams ?? []);
    const about = error ? "error" : answer && streams.length === 0 ? "none" : null;
    byId("gateway-notice").hidden = about === null;
    byId("gateway-scroll").hidden = streams.length === 0;
    if (about !== null) {
      setText(byId("gateway-notice-title"), t(`gateway.${about}`));
      setParts(byId("gateway-notice-text"), about === "error" ? failure(error) : [{ text: t("gateway.none.text") }]);
    }
    if (answer) {
      const held = answer.streams.filter((stream) => stream.held).length;
      const values = { total: count(answer.total), held: count(held), most: count(MOST_STREAMS) };
      setText(byId("gateway-count"), t(answer.total > streams.length ? "gateway.cut" : answer.total === 1 ? "gateway.one" : "gateway.count", values));
    }
    while (rows.length < streams.length) rows.push(makeRow());
    rows.forEach((row, at) => {
      row.element.hidden = at >= streams.length;
      if (at < streams.length) fill(row, streams[at]);
    });
  }

  function makeRow() {
    const cells = heads.map(({ key }) => make("td", { className: `g-${key}` }, ...(key === "state" ? [make("i", { className: "shape" }), make("span", {})] : [make("span", {})])));
    const element = make("tr", {}, ...cells);
    body.append(element);
    return { element, texts: cells.map((cell) => cell.lastChild) };
  }

  function fill({ element, texts }, stream) {
    setAttribute(element, "data-state", { parked: "stale", held: "stalled", flowing: "clear" }[streamState(stream)]);
    heads.forEach(({ key }, column) => setText(texts[column], CELLS[key](stream)));
  }

  document.addEventListener("visibilitychange", look);

  return {
    setHello(hello) {
      available = hello.has_gateway === true;
      render();
      look();
    },
    show(visible) {
      shown = visible;
      look();
    },
    translate() {
      for (const { key, head } of heads) setText(head, t(`gateway.column.${key}`));
      render();
    },
  };
}
