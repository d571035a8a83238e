// Ten thousand flows: all counted, found, sorted, and scrolled without a frame that somebody would notice.

import assert from "node:assert/strict";

import { run, tell } from "./browser.js";

const FLOWS = 10_000;
const SWEEPS = 3;

await run(async (open) => {
  const page = await open({ path: "#/streams" });
  await page.waitForFunction((flows) => document.getElementById("streams-count").textContent.replace(/\D/g, "").includes(String(flows)), FLOWS);
  const table = page.locator("#streams-table");
  assert(Number(await table.getAttribute("aria-rowcount")) >= FLOWS);
  const drawn = await page.locator("#streams-table tbody tr:not([hidden])").count();
  assert(drawn > 5 && drawn < 200, `${drawn} rows in the document`);
  // Sweeps, of which the best counts: a core that somebody else has taken is not the page's doing.
  const sweep = () => page.evaluate(async () => {
    const table = document.getElementById("streams-table");
    let scroller = table;
    while (scroller.scrollHeight <= scroller.clientHeight + 1) scroller = scroller.parentElement;
    const frames = [];
    let last = performance.now();
    for (let step = 0; step < 120; step++) {
      scroller.scrollTop += step % 40 === 39 ? 40_000 : 700;
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      frames.push(now - last);
      last = now;
    }
    return Math.max(...frames);
  });
  const longest = [];
  for (let number = 0; number < SWEEPS; number++) longest.push(await sweep());
  tell(`longest frames ${longest.map((frame) => frame.toFixed(0)).join(", ")} ms`);
  assert(Math.min(...longest) < 100, `frames of ${longest.map((frame) => frame.toFixed(0))} ms`);
  await page.fill("#streams-filter", "stalled");
  await page.waitForFunction(() => document.querySelectorAll("#streams-table tbody tr:not([hidden])").length > 0
    && [...document.querySelectorAll("#streams-table tbody tr:not([hidden])")].every((row) => /stalled/i.test(row.textContent)));
});
