// The fleet: an engine and its node with what is known of them, on a wide screen and on a narrow one; a node that has fallen silent, and
// a fleet's process without its bus. `node fleet.js ADDRESS [FOLDER]`: where to put pictures.

import assert from "node:assert/strict";

import { run, tell, told, violations } from "./browser.js";

await run(async (open, _address, folder) => {
  const pages = [];
  for (const [width, locale] of [[1280, "en-GB"], [390, "zh-CN"]]) {
    const page = await open({ path: "#/fleet", width, locale });
    const row = page.locator(".engine tbody tr:not([hidden])", { hasText: "gpu1" });
    await row.waitFor();
    assert.equal(await page.textContent("#fleet-leader"), "f1");
    assert.equal(await page.textContent(".engine h2"), "e1");
    // All of the engine, on the streams of one node.
    await page.locator(".engine tr:not(.silent) .f-part", { hasText: "100.0 %" }).waitFor();
    assert(await page.isVisible("#nav-fleet"));
    assert(await page.isHidden("#fleet-notice"));
    assert((await page.getAttribute(".past-given", "d")).startsWith("M"));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(wide <= 0, `${wide} px wider than the screen of ${width}`);
    assert.deepEqual(await violations(page), []);
    if (folder) await page.screenshot({ path: `${folder}/fleet-${width}.png`, fullPage: true });
    pages.push(page);
  }
  tell("shown");
  await told();
  for (const page of pages) await page.locator(".engine tr.silent", { hasText: "gpu1" }).waitFor();
  tell("silent");
  await told();
  for (const page of pages) await page.locator("#fleet-facts .told[data-on=true] #fleet-bus").waitFor();
});
