// A page in headless Chromium, for the checks beside this file: each is a program that the test suite runs with the address of a
// dashboard that is there already. It speaks to the suite by lines on its standard streams, because what happens to links and
// servers meanwhile is the suite's to do.
//
// Invariant: whatever the page writes to the console, and every request that fails, is a complaint, unless a check expects it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

// Without these the browser asks its maker for things, which a closed network answers with noise.
const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--hide-scrollbars"];

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** The next line from the suite. */
export async function told() {
  const { value, done } = await input.next();
  assert(!done, "the suite went away");
  return value;
}

/** A line to the suite. */
export const tell = (line) => process.stdout.write(`${line}\n`);

/** Runs `check(open, address, ...)` with the arguments of the command line; `open` makes pages. */
export async function run(check) {
  const [address, ...rest] = process.argv.slice(2);
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ARGS });
  const complaints = [];
  const open = async (options = {}) => {
    const { width = 1280, height = 900, path = "", ready = true, ...context } = options;
    const page = await (await browser.newContext({ viewport: { width, height }, ...context })).newPage();
    page.complaints = complaints;
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    await page.goto(`${address}/${path}`);
    if (ready) await page.waitForSelector("html[data-ready=true]");
    return page;
  };
  try {
    await check(open, address, ...rest);
    assert.deepEqual(complaints, []);
  } finally {
    await browser.close();
  }
  process.exit(0);
}

/** What the overview shows, as text. */
export const shown = (page) =>
  page.evaluate(() => {
    const byId = (id) => document.getElementById(id);
    return {
      light: byId("light").dataset.on,
      health: byId("health").textContent.trim(),
      current: byId("current-tps").textContent.trim(),
      target: byId("target-tps").textContent.trim(),
      state: byId("state").dataset.state,
      reason: byId("reason").textContent.trim(),
      connection: byId("connection").dataset.connection,
    };
  });

/** What axe-core finds on the page as it is now. */
export async function violations(page) {
  const axe = await readFile(new URL("../../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run());
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
}

/** The file that a button saves. */
export async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  return Buffer.concat(chunks);
}
