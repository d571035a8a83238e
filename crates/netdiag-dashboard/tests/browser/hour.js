// An hour at two samples per second: a row that arrives is drawn within 100 ms. The suite writes rows when it is told to.

import assert from "node:assert/strict";

import { run, tell, told } from "./browser.js";

const ROWS = 10;

await run(async (open) => {
  const page = await open();
  await page.click("[data-range='3600']");
  await page.evaluate(() => {
    window.delays = [];
    let arrived = null;
    new PerformanceObserver((list) => {
      for (const { name, startTime } of list.getEntries()) {
        if (name === "netdiag:arrived") arrived ??= startTime;
        if (name === "netdiag:drawn" && arrived !== null) {
          window.delays.push(startTime - arrived);
          arrived = null;
        }
      }
    }).observe({ type: "mark" });
  });
  for (let row = 0; row < ROWS; row++) {
    tell("row");
    await told();
    await page.waitForFunction((rows) => window.delays.length >= rows, row + 1);
  }
  const delays = await page.evaluate(() => window.delays);
  const median = [...delays].sort((a, b) => a - b)[Math.floor(delays.length / 2)];
  tell(`drawn after ${delays.map((delay) => delay.toFixed(0)).join(", ")} ms`);
  assert(median < 100, `a row is drawn after ${median.toFixed(0)} ms`);
});
