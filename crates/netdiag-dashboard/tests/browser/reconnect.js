// The server goes, is missed, comes back, and is found again, with its history.

import assert from "node:assert/strict";

import { run, shown, tell, told } from "./browser.js";

await run(async (open) => {
  const page = await open();
  const connection = (state) => page.waitForSelector(`#connection[data-connection=${state}]`, { state: "attached" });
  await connection("live");
  tell("live");
  await told(); // stopped
  await connection("lost");
  assert(await page.isVisible("#banner"));
  tell("lost");
  await told(); // started
  await connection("live");
  assert.equal((await shown(page)).connection, "live");
  assert(!(await page.isVisible("#banner")));
  tell("live again");
  // Requests to a server that is gone fail, which the browser notes.
  const expected = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/;
  const others = page.complaints.filter((text) => !expected.test(text));
  assert.deepEqual(others, []);
  page.complaints.length = 0;
});
