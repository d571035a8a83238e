// The page loads without a complaint and shows the very values of the hint that the other server gives for the same telemetry.

import assert from "node:assert/strict";

import { run, shown } from "./browser.js";

await run(async (open, address, hints) => {
  const page = await open();
  const hint = await (await fetch(`${hints}/v1/hint`)).json();
  const seen = await shown(page);
  assert.deepEqual(seen, {
    light: String(hint.anomaly),
    health: hint.health.toFixed(2),
    current: hint.current_tps.toFixed(1),
    target: hint.target_tps.toFixed(1),
    state: hint.state,
    reason: hint.reason,
    connection: seen.connection,
  });
  assert.equal(seen.connection, "live");
  assert.match(await page.title(), hint.anomaly ? /^▲.*NetDiag-LLM$/ : /^NetDiag-LLM$/);
});
