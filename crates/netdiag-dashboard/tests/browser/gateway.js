// The streams of a gateway: listed with what is known of each, on a wide screen and on a narrow one, and told when there are none.
// `node gateway.js ADDRESS ID [FOLDER]`: the stream's name, and where to put pictures.

import assert from "node:assert/strict";

import { run, tell, told } from "./browser.js";

await run(async (open, _address, id, folder) => {
  const pages = [];
  for (const [width, locale] of [[1280, "en-GB"], [390, "zh-CN"]]) {
    const page = await open({ path: "#/streams", width, locale });
    const row = page.locator("#gateway-table tbody tr:not([hidden])", { hasText: id });
    await row.waitFor();
    const cells = await row.locator("td").allTextContents();
    assert(cells.includes("netdiag-demo"), cells.join(" | "));
    // The engine's address is left out where there is no room.
    assert.equal(await page.isVisible("th.g-engine"), width > 1000);
    assert(/[1-9]/.test(await page.textContent("#gateway-count")));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(wide <= 0, `${wide} px wider than the screen of ${width}`);
    if (folder) await page.screenshot({ path: `${folder}/gateway-${width}.png`, fullPage: true });
    pages.push(page);
  }
  tell("listed");
  await told();
  for (const page of pages) await page.locator("#gateway-notice").waitFor();
});
