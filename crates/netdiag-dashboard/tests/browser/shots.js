// Pictures of the page as it is now: `node shots.js ADDRESS FOLDER NAME [one FILE LOCALE SCHEME]`. All widths and themes, or the one
// that a document shows.

import { run, tell } from "./browser.js";

await run(async (open, _address, folder, name, one, file, locale, colorScheme) => {
  const take = async (options, path, fullPage) => {
    const page = await open(options);
    // Without anything to show there is no range to choose.
    if (await page.isVisible("[data-range='60']")) await page.click("[data-range='60']");
    await page.waitForTimeout(1500); // colours fade, and a row or two arrive
    await page.screenshot({ path, fullPage });
    await page.context().close();
    tell(path);
  };
  if (one === "one") {
    await take({ width: 1280, height: 870, locale, colorScheme }, file, false);
    return;
  }
  for (const width of [1440, 768, 390]) {
    for (const [scheme, language] of [["light", "en-GB"], ["dark", "zh-CN"]]) {
      await take({ width, height: 900, locale: language, colorScheme: scheme }, `${folder}/${name}-${width}-${scheme}.png`, true);
    }
  }
});
