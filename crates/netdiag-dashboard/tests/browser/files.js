// Every path of the server that loading the page asks for, one a line, but for the endless stream of events.

import { run, tell } from "./browser.js";

await run(async (open) => {
  const page = await open();
  const loaded = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => new URL(name).pathname));
  for (const path of new Set(["/", ...loaded])) if (!path.startsWith("/api/")) tell(path);
});
