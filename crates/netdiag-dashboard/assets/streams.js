// The table of flows. Only the rows in sight are elements, so ten thousand flows cost as much as forty. Each row is laid out by
// itself (a grid, with explicit roles), since a table would be measured as a whole at every step of a scroll; a row that stays in
// sight is not touched at all, and only their body is moved.
//
// Invariant: the server is asked only while this view is on screen, one request at a time, and the rows don't change order under a
// hand that scrolls.

import { ask, byId, make, setAttribute, setParts, setText } from "./dom.js";
import { bits, bytes, count, fixed, microseconds, waiting } from "./format.js";
import { makeGateway } from "./gateway.js";
import { failure, language, t, word } from "./i18n.js";
import { STALLED_FIRST, TABLE_COLUMNS, filtered, pressed, rowsInSight, sorted } from "./table.js";

// As in the style sheet.
const ROW_HEIGHT = 34;
const HEAD_HEIGHT = 39;
const ASK_SECONDS = 1;
// Reading and sorting more than this takes a while, and nobody reads so many each second.
const MANY = 3000;
const ASK_SECONDS_MANY = 3;
const SCROLL_REST_MS = 400;

const CELLS = {
  peer: (flow) => flow.peer,
  local: (flow) => flow.local,
  state: (flow) => word("state", flow.state),
  cause: (flow) => (flow.cause ? word("cause", flow.cause) : "–"),
  p95_rtt_us: (flow) => microseconds(flow.p95_rtt_us),
  srtt_us: (flow) => microseconds(flow.srtt_us),
  retrans_count: (flow) => count(flow.retrans_count),
  unacked_segs: (flow) => count(flow.unacked_segs),
  notsent_bytes: (flow) => bytes(flow.notsent_bytes),
  waiting_us: (flow) => (flow.waiting_us > 0 ? waiting(flow.waiting_us) : "–"),
  throughput_bps: (flow) => bits(flow.throughput_bps),
  current_tps: (flow) => (flow.hold ? t("hold.word") : fixed(flow.current_tps, 1)),
};

export function makeStreams() {
  const gateway = makeGateway();
  const scroll = byId("streams-scroll");
  const table = byId("streams-table");
  const body = table.tBodies[0];
  // The rows' elements from top to bottom, with what each shows.
  const pool = [];
  // Whether there are flows to ask for; null until the server has said so.
  let available = null;
  let mode = null;
  let shown = false;
  let sort = STALLED_FIRST;
  let answer = null;
  let error = null;
  let flows = [];
  let timer = null;
  let asking = false;
  let scrolledAt = -Infinity;
  let asked = false;

  const heads = TABLE_COLUMNS.map(({ key }) => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      sort = pressed(sort, key);
      arrange();
    });
    const head = make("th", { scope: "col", className: `c-${key}` }, button);
    head.setAttribute("role", "columnheader");
    table.tHead.rows[0].append(head);
    return { key, head, button };
  });

  scroll.addEventListener("scroll", () => {
    scrolledAt = performance.now();
    request();
  }, { passive: true });
  new ResizeObserver(request).observe(scroll);
  byId("streams-filter").addEventListener("input", arrange);
  byId("streams-default").addEventListener("click", () => {
    sort = STALLED_FIRST;
    scroll.scrollTop = 0;
    arrange();
  });

  async function look() {
    clearTimeout(timer);
    if (!shown || !available || document.hidden || asking) return;
    asking = true;
    try {
      await handRests();
      answer = await ask("api/streams", handRests);
      error = null;
    } catch (caught) {
      error = caught;
    }
    asking = false;
    const many = (answer?.streams.length ?? 0) > MANY;
    timer = setTimeout(look, 1000 * (many ? ASK_SECONDS_MANY : ASK_SECONDS));
    arrange();
  }

  // Reading and sorting thousands of flows would cost a frame, so both wait.
  async function handRests() {
    for (;;) {
      const wait = SCROLL_REST_MS - (performance.now() - scrolledAt);
      if (wait <= 0) return;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  function arrange() {
    const all = answer?.streams ?? [];
    flows = sorted(filtered(all, byId("streams-filter").value), sort);
    for (const { key, head } of heads) {
      if (key === sort.key) setAttribute(head, "aria-sort", sort.direction);
      else head.removeAttribute("aria-sort");
    }
    setAttribute(table, "aria-rowcount", String(flows.length + 1));
    if (answer) {
      const cut = answer.total > all.length;
      const values = { shown: count(flows.length), total: count(answer.total), sent: count(all.length) };
      setText(byId("streams-count"), t(cut ? "streams.cut" : answer.total === 1 ? "streams.one" : "streams.count", values));
    }
    tell(all);
    request();
  }

  function tell(all) {
    const about = available === false ? (mode === "experiment" ? "experiment" : "csv") : error ? "error" : answer && all.length === 0 ? "none" : answer && flows.length === 0 ? "match" : null;
    byId("streams-notice").hidden = about === null;
    for (const id of ["streams-tools", "streams-count"]) byId(id).hidden = available === false;
    scroll.hidden = available === false || (answer === null ? error !== null : flows.length === 0);
    if (about === null) return;
    setText(byId("streams-notice-title"), about === "error" ? t("streams.error") : t(`streams.${about}.title`));
    setParts(byId("streams-notice-text"), about === "error" ? failure(error) : [{ text: t(`streams.${about}.text`) }]);
  }

  function request() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (shown) render();
    });
  }

  function render() {
    const { start, end } = rowsInSight({ scrollTop: scroll.scrollTop, height: scroll.clientHeight, rowHeight: ROW_HEIGHT, total: flows.length });
    table.style.height = `${HEAD_HEIGHT + flows.length * ROW_HEIGHT}px`;
    body.style.transform = `translateY(${start * ROW_HEIGHT}px)`;
    while (pool.length < end - start) {
      pool.push(makeRow());
      body.append(pool.at(-1).row);
    }
    turn(start);
    pool.forEach((slot, at) => {
      const inSight = start + at < end;
      if (slot.row.hidden === inSight) slot.row.hidden = !inSight;
      if (inSight) fill(slot, start + at);
    });
  }

  // Elements that leave at one end come in again at the other, in the order in which they are read; those in sight before and after
  // stay as they are. After a jump nothing stays, and nothing needs to move.
  function turn(start) {
    const by = start - (pool[0]?.index ?? start);
    if (Math.abs(by) >= pool.length) return;
    for (let step = 0; step < by; step++) {
      pool.push(pool.shift());
      body.append(pool.at(-1).row);
    }
    for (let step = 0; step > by; step--) {
      pool.unshift(pool.pop());
      body.prepend(pool[0].row);
    }
  }

  function makeRow() {
    const row = make("tr");
    row.setAttribute("role", "row");
    const cells = TABLE_COLUMNS.map(({ key }) => {
      const text = document.createTextNode("");
      const cell = make("td", { className: `c-${key}` }, ...(key === "state" ? [make("i", { className: "shape" }), text] : [text]));
      cell.setAttribute("role", "cell");
      row.append(cell);
      return text;
    });
    return { row, cells, peer: row.firstChild, index: -1, flow: null, language: null };
  }

  function fill(slot, index) {
    const flow = flows[index];
    if (slot.index !== index) {
      slot.index = index;
      slot.row.setAttribute("aria-rowindex", String(index + 2));
    }
    if (slot.flow === flow && slot.language === language()) return;
    slot.flow = flow;
    slot.language = language();
    setAttribute(slot.row, "data-state", flow.state);
    // Long addresses may not fit.
    setAttribute(slot.peer, "title", flow.peer);
    TABLE_COLUMNS.forEach(({ key }, column) => {
      const text = CELLS[key](flow);
      if (slot.cells[column].data !== text) slot.cells[column].data = text;
    });
  }

  document.addEventListener("visibilitychange", look);

  return {
    setHello(hello) {
      available = hello.has_streams;
      mode = hello.mode;
      gateway.setHello(hello);
      arrange();
      look();
    },
    show(visible) {
      shown = visible;
      gateway.show(visible);
      if (visible) request();
      look();
    },
    translate() {
      gateway.translate();
      for (const { key, button } of heads) setText(button, t(`column.${key}`));
      arrange();
    },
  };
}
