// The connection as it is held, with a browser of stubs: what is opened, closed and thrown away, and that no request waits for ever.

import assert from "node:assert/strict";
import test, { mock } from "node:test";
import { ask } from "../../assets/dom.js";
import { openFeed } from "../../assets/feed.js";
import { Rows } from "../../assets/rows.js";

// A browser with one page; its clock and the events are the test's.
function browser() {
  const sources = [];
  let seconds = 0;
  let tick;
  mock.method(performance, "now", () => seconds * 1000);
  mock.method(globalThis, "setInterval", (handle) => (tick = handle));
  mock.method(globalThis, "fetch", async () => ({ ok: true, status: 204 }));
  globalThis.document = new EventTarget();
  document.hidden = false;
  globalThis.EventSource = class {
    open = true;
    handlers = {};
    constructor() {
      sources.push(this);
    }
    addEventListener(name, handle) {
      this.handlers[name] = handle;
    }
    close() {
      this.open = false;
    }
    tell(name, data) {
      this.handlers[name]({ data: JSON.stringify(data) });
    }
  };
  const rows = new Rows();
  const told = { status: null };
  const nothing = () => {};
  openFeed(rows, {
    onHello: nothing, onRows: nothing, onNow: nothing, onLive: nothing, onExperiment: nothing, onArm: nothing,
    onStatus: (status) => (told.status = status),
  });
  const live = (times) => {
    const source = sources.at(-1);
    source.tell("hello", { stale_after_seconds: 2 });
    source.tell("rows", { t: times });
    source.tell("now", { age_seconds: 0.1, state: "clear" });
    source.tell("live", {});
  };
  return {
    rows,
    sources,
    live,
    connection: () => told.status.connection,
    full: () => told.status.full,
    isOpen: () => sources.filter(({ open }) => open).length,
    pass(more, { silent = true } = {}) {
      for (let step = 0; step < 2 * more; step++) {
        seconds += 0.5;
        if (!silent) sources.at(-1).tell("now", { age_seconds: 0.1, state: "clear" });
        tick();
      }
    },
    show(visible) {
      document.hidden = !visible;
      document.dispatchEvent(new Event("visibilitychange"));
    },
  };
}

test.afterEach(() => mock.restoreAll());

test("hello throws the rows away, so that two servers' are never mixed", () => {
  const page = browser();
  page.live([1000, 1001]);
  page.sources.at(-1).onerror();
  page.pass(1);
  assert.deepEqual(page.rows.slice(0, Infinity).t, [1000, 1001], "until then they stay");
  page.live([500, 501]);
  assert.deepEqual(page.rows.slice(0, Infinity).t, [500, 501]);
  assert.equal(page.connection(), "live");
});

test("what the server calls stale is stale, though it came just now", () => {
  const page = browser();
  page.live([1000]);
  assert.equal(page.connection(), "live");
  page.sources.at(-1).tell("now", { age_seconds: 0.1, state: "stale" });
  assert.equal(page.connection(), "stale");
});

test("attempts that hang are given up, one after the other", () => {
  const page = browser();
  page.live([1000]);
  page.sources.at(-1).onerror();
  page.pass(90);
  assert.ok(page.sources.length >= 4, `${page.sources.length} attempts`);
  assert.ok(page.isOpen() <= 1);
  assert.equal(page.connection(), "lost");
});

test("a page hidden for a minute gives its connection back, and has one at once when it is seen", () => {
  const page = browser();
  page.live([1000]);
  page.show(false);
  page.pass(59, { silent: false });
  assert.equal(page.isOpen(), 1);
  page.pass(2, { silent: false });
  page.pass(300);
  assert.equal(page.isOpen(), 0);
  assert.equal(page.sources.length, 1);
  assert.equal(page.connection(), "connecting");
  page.show(true);
  assert.equal(page.isOpen(), 1);
  assert.equal(page.sources.length, 2);
  page.live([1000, 1300]);
  assert.equal(page.connection(), "live");
  assert.equal(page.rows.length, 2);
});

test("a refused stream asks for the session: too many viewers, or back to the login and then to the same view", async () => {
  const page = browser();
  const refuse = async () => {
    page.sources.at(-1).readyState = 2;
    page.sources.at(-1).onerror();
    await new Promise(setImmediate);
  };
  await refuse();
  assert.equal(page.full(), true);
  page.pass(2);
  page.sources.at(-1).readyState = 0;
  page.sources.at(-1).onerror();
  await new Promise(setImmediate);
  assert.equal(page.full(), false, "a server that is gone refuses nobody");
  const kept = signedOut();
  page.pass(20);
  await refuse();
  assert.deepEqual(kept, { "netdiag.view": "#/streams", "reloads": 1 });
});

// From now on the session is over.
function signedOut() {
  const kept = { reloads: 0 };
  mock.method(globalThis, "fetch", async () => ({ ok: false, status: 401, text: async () => "" }));
  globalThis.location = { hash: "#/streams", reload: () => kept.reloads++ };
  globalThis.sessionStorage = { setItem: (name, value) => (kept[name] = value) };
  return kept;
}

test("a question that needs a login leads to it", async () => {
  const kept = signedOut();
  await assert.rejects(ask("api/streams"), /HTTP 401/);
  await new Promise(setImmediate);
  assert.equal(kept.reloads, 1);
});

const answer = (status, text) => mock.method(globalThis, "fetch", async () => ({ ok: status < 300, status, text: async () => text }));

test("an answer is JSON, an error has the server's words or else its number", async () => {
  answer(200, '{"works":true}');
  assert.deepEqual(await ask("api/machine"), { works: true });
  answer(503, '{"error":{"status":503,"message":"no telemetry"}}');
  await assert.rejects(ask("api/streams"), /^Error: no telemetry$/);
  answer(502, "<h1>Bad gateway</h1>");
  await assert.rejects(ask("api/streams"), /^Error: HTTP 502$/);
  answer(200, "<h1>Hello</h1>");
  await assert.rejects(ask("api/streams"), { kind: "odd" });
  mock.method(globalThis, "fetch", async () => {
    throw new TypeError("Failed to fetch");
  });
  await assert.rejects(ask("api/streams"), { kind: "network" });
});

test("a server that does not answer is not waited for", async () => {
  const limits = [];
  mock.method(AbortSignal, "timeout", (limit) => {
    limits.push(limit);
    return AbortSignal.abort();
  });
  mock.method(globalThis, "fetch", (_, { signal }) => (signal?.aborted ? Promise.reject(signal.reason) : new Promise(() => {})));
  await assert.rejects(ask("api/streams"));
  assert.deepEqual(limits, [15_000]);
});
