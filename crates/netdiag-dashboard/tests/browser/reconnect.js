// The server goes, is missed, comes back, and is found again, with its history. While it is gone, nothing claims that the link is well.

import assert from "node:assert/strict";

import { run, saved, shown, tell, told, violations } from "./browser.js";

await run(async (open) => {
  const page = await open();
  const connection = (state) => page.waitForSelector(`#connection[data-connection=${state}]`, { state: "attached" });
  const colour = (selector) => page.evaluate((selector) => getComputedStyle(document.querySelector(selector)).color, selector);
  await connection("live");
  await page.click("[data-range=all]");
  const before = (await saved(page, "#export-csv")).toString();
  assert(before.trim().split("\n").length > 10, before);
  tell("live");
  await told(); // stopped
  await connection("lost");
  assert(await page.isVisible("#banner"));
  await page.waitForSelector("#light[data-on=unknown]");
  await page.waitForSelector("#mini[data-on=unknown]", { state: "attached" });
  assert.equal((await shown(page)).state, "stale");
  assert.equal(await colour("#state .icon"), await colour("#state-means"), "grey like what is beside the point");
  assert.deepEqual(await violations(page), []);
  tell("lost");
  await told(); // started
  await connection("live");
  await page.waitForSelector("#banner", { state: "hidden" });
  await page.waitForSelector("#light:not([data-on=unknown])");
  assert.notEqual((await shown(page)).state, "stale");
  assert.equal((await saved(page, "#export-csv")).toString(), before, "the history is back");
  assert.deepEqual(await violations(page), []);
  tell("live again");
  // Requests to a server that is gone fail, which the browser notes.
  const expected = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/;
  const others = page.complaints.filter((text) => !expected.test(text));
  assert.deepEqual(others, []);
  page.complaints.length = 0;
});
