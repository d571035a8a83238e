// The one EventSource: hands on what the server tells, and opens it again when it is gone, with growing patience. The browser's own
// way of reconnecting gives up for good on an answer like 503, so it is not relied on.
//
// Invariant: at most one EventSource is open, and every way in which it can end leads to another try or to the login page. The rows
// held are those of one server since its `hello`, never a mixture.

import { START, due, status, step } from "./connection.js";
import { session } from "./dom.js";

// An EventSource that is closed by itself was answered, but not with a stream.
const CLOSED = 2;

const now = () => performance.now() / 1000;

export function openFeed(rows, { onHello, onRows, onNow, onLive, onExperiment, onArm, onStatus }) {
  let state = START;
  let source = null;
  let hiddenSince = document.hidden ? now() : null;

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
      rows.clear();
      onHello(hello);
      on({ kind: "hello", staleAfter: hello.stale_after_seconds });
    });
    listen("rows", (batch) => {
      performance.clearMarks("netdiag:arrived");
      performance.mark("netdiag:arrived");
      rows.append(batch);
      onRows(batch);
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

  function close() {
    source?.close();
    source = null;
  }

  async function fail() {
    const refused = source?.readyState === CLOSED;
    close();
    on({ kind: "failed", refused });
    try {
      // To somebody who may see it, the stream is refused only where too many are open.
      if ((await session()) === 204 && refused && source === null) on({ kind: "full" });
    } catch {
      // No server there: the next try will tell.
    }
  }

  function tick() {
    const at = now();
    const next = due(state, at, { open: source !== null, hiddenSince });
    if (next === "open") open();
    else if (next === "fail") fail();
    else if (next === "rest") {
      close();
      on({ kind: "resting" });
    } else onStatus(status(state, at));
  }

  document.addEventListener("visibilitychange", () => {
    hiddenSince = document.hidden ? now() : null;
    tick();
  });
  open();
  setInterval(tick, 500);
}
