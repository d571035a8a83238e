// The table of flows. Only the rows in sight are elements, so ten thousand flows cost as much as forty; two empty bodies above and
// below keep the scroll bar honest.
//
// Invariant: the server is asked only while this view is on screen, one request at a time, and the rows don't change order under a
// hand that scrolls.

import { byId, icon, make, setAttribute, setText } from "./dom.js";
import { bits, bytes, count, fixed, microseconds } from "./format.js";
import { t } from "./i18n.js";
import { STALLED_FIRST, TABLE_COLUMNS, filtered, pressed, rowsInSight, sorted } from "./table.js";

// As in the style sheet.
const ROW_HEIGHT = 34;
const ASK_SECONDS = 1;
// Reading and sorting more than this takes a while, and nobody reads so many each second.
const MANY = 3000;
const ASK_SECONDS_MANY = 3;
const SCROLL_REST_MS = 400;

const CELLS = {
  peer: (flow) => flow.peer,
  local: (flow) => flow.local,
  state: (flow) => t(`state.${flow.state}`),
  cause: (flow) => (flow.cause ? t(`cause.${flow.cause}`) : "–"),
  p95_rtt_us: (flow) => microseconds(flow.p95_rtt_us),
  srtt_us: (flow) => microseconds(flow.srtt_us),
  retrans_count: (flow) => count(flow.retrans_count),
  unacked_segs: (flow) => count(flow.unacked_segs),
  notsent_bytes: (flow) => bytes(flow.notsent_bytes),
  waiting_us: (flow) => (flow.waiting_us > 0 ? microseconds(flow.waiting_us) : "–"),
  throughput_bps: (flow) => bits(flow.throughput_bps),
  current_tps: (flow) => (flow.hold ? t("hold.word") : fixed(flow.current_tps, 1)),
};

export function makeStreams() {
  const scroll = byId("streams-scroll");
  const table = byId("streams-table");
  const [above, body, below] = table.tBodies;
  const pool = [];
  let available = true;
  let shown = false;
  let sort = STALLED_FIRST;
  let answer = null;
  let error = null;
  let flows = [];
  let timer = null;
  let asking = false;
  let scrolledAt = -Infinity;
  let awaitingRest = null;
  let asked = false;

  const heads = TABLE_COLUMNS.map(({ key }) => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      sort = pressed(sort, key);
      arrange();
    });
    table.querySelector("colgroup").append(make("col", { className: `c-${key}` }));
    const head = make("th", { scope: "col", className: `c-${key}` }, button);
    table.tHead.rows[0].append(head);
    return { key, head, button };
  });
  for (const spacer of [above, below]) spacer.append(make("tr", { ariaHidden: "true" }, make("td", { colSpan: TABLE_COLUMNS.length })));

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

  async function ask() {
    clearTimeout(timer);
    if (!shown || !available || document.hidden || asking) return;
    asking = true;
    try {
      const response = await fetch("api/streams", { cache: "no-store" });
      const body = await response.json();
      if (!response.ok) throw new Error(body.error?.message ?? `HTTP ${response.status}`);
      answer = body;
      error = null;
    } catch (failure) {
      error = failure.message;
    }
    asking = false;
    const many = (answer?.streams.length ?? 0) > MANY;
    timer = setTimeout(ask, 1000 * (many ? ASK_SECONDS_MANY : ASK_SECONDS));
    settle();
  }

  // New flows wait until the hand rests.
  function settle() {
    clearTimeout(awaitingRest);
    const rest = SCROLL_REST_MS - (performance.now() - scrolledAt);
    if (rest > 0) awaitingRest = setTimeout(settle, rest);
    else arrange();
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
      setText(byId("streams-count"), t(cut ? "streams.cut" : "streams.count", values));
    }
    tell(all);
    request();
  }

  function tell(all) {
    const about = !available ? "csv" : error ? "error" : answer && all.length === 0 ? "none" : answer && flows.length === 0 ? "match" : null;
    byId("streams-notice").hidden = about === null;
    scroll.hidden = !available || (answer !== null && flows.length === 0);
    if (about === null) return;
    setText(byId("streams-notice-title"), about === "error" ? t("streams.error") : t(`streams.${about}.title`));
    setText(byId("streams-notice-text"), about === "error" ? error : t(`streams.${about}.text`));
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
    for (const [spacer, rows] of [[above, start], [below, flows.length - end]]) {
      spacer.hidden = rows <= 0;
      spacer.rows[0].cells[0].style.height = `${rows * ROW_HEIGHT}px`;
    }
    while (pool.length < end - start) pool.push(makeRow());
    for (let row = 0; row < end - start; row++) fill(pool[row], flows[start + row], start + row);
    while (body.rows.length < end - start) body.append(pool[body.rows.length].row);
    while (body.rows.length > end - start) body.lastElementChild.remove();
  }

  function makeRow() {
    const row = make("tr");
    const cells = TABLE_COLUMNS.map(({ key }) => {
      const text = make("span");
      const cell = make("td", { className: `c-${key}` }, ...(key === "state" ? [icon("idle"), " ", text] : [text]));
      row.append(cell);
      return text;
    });
    return { row, cells };
  }

  function fill({ row, cells }, flow, index) {
    setAttribute(row, "aria-rowindex", String(index + 2));
    setAttribute(row, "data-state", flow.state);
    setAttribute(row.querySelector("use"), "href", `#i-${flow.state}`);
    TABLE_COLUMNS.forEach(({ key }, column) => setText(cells[column], CELLS[key](flow)));
  }

  document.addEventListener("visibilitychange", ask);

  return {
    setAvailable(has) {
      available = has;
      arrange();
      ask();
    },
    show(visible) {
      shown = visible;
      if (visible) request();
      ask();
    },
    translate() {
      for (const { key, button } of heads) setText(button, t(`column.${key}`));
      arrange();
    },
  };
}
