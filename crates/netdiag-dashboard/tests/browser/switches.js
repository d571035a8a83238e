// Language, theme, range and pause: switched in place, and remembered.

import assert from "node:assert/strict";

import { run, saved } from "./browser.js";

await run(async (open) => {
  const page = await open({ locale: "en-GB", colorScheme: "light" });
  const text = (selector) => page.textContent(selector);
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const english = await text("#light");
  assert.equal(await page.getAttribute("html", "lang"), "en");
  await page.click("#lang");
  assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
  assert.match(await text("#light"), /[\u4e00-\u9fff]/);
  assert.match(await text("nav"), /[\u4e00-\u9fff]/);
  const light = await background();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await background(), light, "auto follows the system");
  await page.click("#theme");
  assert.equal(await page.getAttribute("html", "data-theme"), "light");
  assert.equal(await background(), light);
  await page.reload();
  await page.waitForSelector("html[data-ready=true]");
  assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
  assert.equal(await background(), light);
  await page.click("#lang");
  assert.equal(await text("#light"), english);

  // By keyboard alone, from where no button has the focus.
  await page.focus("#main");
  await page.keyboard.press("3");
  assert.equal(await page.getAttribute("[data-range='3600']", "aria-pressed"), "true");
  await page.keyboard.press("l");
  await page.reload();
  await page.waitForSelector("html[data-ready=true]");
  assert.equal(await page.getAttribute("[data-range='3600']", "aria-pressed"), "true");
  assert.equal(await page.getAttribute("[data-scale='log']", "aria-pressed"), "true");
  await page.focus("#main");
  await page.keyboard.press("Space");
  assert.equal(await page.getAttribute("#pause", "aria-pressed"), "true");
  await page.click("nav a[data-view=machine]");
  await page.waitForSelector("#view-machine [data-status], #view-machine li");
  await page.reload();
  await page.waitForSelector("#view-machine:not([hidden])");

  // Typed without the slash.
  await page.evaluate(() => (location.hash = "#streams"));
  await page.waitForSelector("#view-streams:not([hidden])");

  // An address that names no view, though every object has something of that name.
  await page.evaluate(() => (location.hash = "#/toString"));
  await page.waitForSelector("#view-overview:not([hidden])");

  // What is exported is what is shown.
  await page.click("nav a[data-view=overview]");
  const csv = (await saved(page, "#export-csv")).toString();
  assert.match(csv, /^timestamp,min_rtt_us,avg_rtt_us,p95_rtt_us,retrans_count,throughput_bps,flows,stalled_flows,health,anomaly,current_tps/);
  assert(csv.trim().split("\n").length > 1, csv);
  const png = await saved(page, "#export-png");
  assert.deepEqual([...png.subarray(1, 4)], [...Buffer.from("PNG")]);
});
