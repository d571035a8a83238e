// A link gets worse while somebody looks: how long until the light and the rate on the screen have changed. The suite makes it worse when
// it is told `calm`, and says when it has.

import { run, shown, tell, told } from "./browser.js";

await run(async (open) => {
  const page = await open();
  await page.waitForFunction(() => document.getElementById("light").dataset.on === "false"
    && Number.parseFloat(document.getElementById("current-tps").textContent) > 70);
  const full = Number.parseFloat((await shown(page)).current);
  tell("calm");
  // From here the page notes by itself when each has changed; a round trip to it would be in the figure.
  await page.evaluate((full) => {
    window.changed = {};
    const look = () => {
      if (document.getElementById("light").dataset.on === "true") window.changed.light ??= Date.now();
      if (Number.parseFloat(document.getElementById("current-tps").textContent) < full / 2) window.changed.rate ??= Date.now();
      if (window.changed.light === undefined || window.changed.rate === undefined) requestAnimationFrame(look);
    };
    look();
  }, full);
  tell("watching");
  const since = Number(await told());
  await page.waitForFunction(() => "light" in window.changed && "rate" in window.changed, null, { timeout: 20_000 });
  const { light, rate } = await page.evaluate(() => window.changed);
  tell(`light ${light - since} rate ${rate - since}`);
});
