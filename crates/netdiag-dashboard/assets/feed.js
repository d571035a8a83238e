// The one EventSource: hands on what the server tells, and opens it again when it is gone, with growing patience. The browser's own
// way of reconnecting gives up for good on an answer like 503, so it is not relied on.
//
// Invariant: at most one EventSource is open, and every way in which it can end leads to another try or to the login page.

import { START, isSilent, status, step } from "./connection.js";

const now = () => performance.now() / 1000;

export function openFeed({ onHello, onRows, onNow, onLive, onExperiment, onArm, onStatus }) {
  let state = START;
  let source = null;

  const on = (event) => {
    state = step(state, event, now());
    onStatus(status(state, now()));
  };

  function open() {
    on({ kind: "opening" });
    const mine = new EventSource("api/events");
    source = mine;
    const listen = (name, handle) =>
      mine.addEventListener(name, (event) => {
        if (source === mine) handle(JSON.parse(event.data));
      });
    listen("hello", (hello) => {
      onHello(hello);
      on({ kind: "hello", staleAfter: hello.stale_after_seconds });
    });
    listen("rows", (rows) => {
      performance.clearMarks("netdiag:arrived");
      performance.mark("netdiag:arrived");
      onRows(rows);
      on({ kind: "heard" });
    });
    listen("experiment", onExperiment);
    listen("arm", (arm) => {
      onArm(arm);
      on({ kind: "heard" });
    });
    listen("now", (hint) => {
      onNow(hint);
      on({ kind: "now", age: hint.age_seconds, stale: hint.state === "stale" });
    });
    listen("live", () => {
      on({ kind: "live" });
      onLive();
    });
    mine.onerror = fail;
  }

  async function fail() {
    source?.close();
    source = null;
    on({ kind: "failed" });
    try {
      const answer = await fetch("api/session", { cache: "no-store" });
      if (answer.status === 401) location.reload();
    } catch {
      // No server there: the next try will tell.
    }
  }

  function tick() {
    const at = now();
    if (source && isSilent(state, at)) fail();
    else if (!source && at >= state.retryAt) open();
    else onStatus(status(state, at));
  }

  open();
  setInterval(tick, 500);
}
