// axe-core finds nothing, in any view, theme or language.

import assert from "node:assert/strict";

import { run, tell, violations } from "./browser.js";

await run(async (open) => {
  const found = [];
  let looked = 0;
  for (const [width, colorScheme, locale] of [[1280, "light", "en-GB"], [1280, "dark", "zh-CN"], [390, "dark", "en-GB"], [390, "light", "zh-CN"]]) {
    const page = await open({ width, colorScheme, locale });
    for (const view of ["overview", "streams", "fleet", "experiment", "machine"]) {
      // A view of what is not there has no link.
      if (await page.isVisible(`nav a[data-view=${view}]`)) await page.click(`nav a[data-view=${view}]`);
      else await page.evaluate((name) => (location.hash = `#/${name}`), view);
      await page.waitForSelector(`#view-${view}:not([hidden])`);
      await page.waitForTimeout(300); // colours fade
      for (const each of await violations(page)) found.push(`${view} ${width} ${colorScheme} ${locale}: ${each}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
      if (wide) found.push(`${view} ${width}: scrolls sideways`);
      looked += 1;
    }
    await page.context().close();
  }
  tell(`looked at ${looked} views`);
  assert.deepEqual(found, []);
});
