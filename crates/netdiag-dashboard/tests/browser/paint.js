// How soon something is painted: the median of fresh loads, in milliseconds.

import { run, tell } from "./browser.js";

const LOADS = 7;

await run(async (open) => {
  const times = [];
  for (let load = 0; load < LOADS; load++) {
    // Each in a context of its own, with nothing kept of the one before.
    const page = await open();
    times.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    await page.context().close();
  }
  tell(String([...times].sort((a, b) => a - b)[Math.floor(LOADS / 2)]));
});
