// About this machine: what the doctor finds, as a list to read from top to bottom, and what this page is connected to. Checks load a
// program into the kernel, so they run when somebody looks and when asked, not by themselves.
//
// Invariant: one check at a time; a failed one says so and leaves the last answer in place.

import { ask, byId, icon, make, setParts, setText } from "./dom.js";
import { failure, t, word } from "./i18n.js";

const KNOWN = ["up", "csv", "hints", "experiment"];
const ICONS = { ok: "ok", warn: "alert", fail: "lost" };

export function makeMachine() {
  let hello = null;
  let report = null;
  let error = null;
  let checking = false;
  let shown = false;

  async function check() {
    if (checking || !hello?.has_machine) return;
    checking = true;
    show();
    try {
      report = await ask("api/machine");
      error = null;
    } catch (caught) {
      error = caught;
    }
    checking = false;
    show();
  }

  function show() {
    setText(byId("machine-telemetry"), hello ? telemetry(hello) : "–");
    setText(byId("machine-version"), hello?.version ?? "–");
    setText(byId("machine-server"), location.host);
    setText(byId("machine-source"), report ? word("source", report.source ?? "none") : "–");
    const again = byId("machine-again");
    again.hidden = hello !== null && !hello.has_machine;
    setText(again, t(checking ? "machine.checking" : "machine.again"));
    again.setAttribute("aria-disabled", String(checking));
    setParts(byId("machine-verdict"), verdict());
    byId("checks").replaceChildren(...(report?.checks ?? []).map(makeCheck));
  }

  function verdict() {
    if (hello && !hello.has_machine) return [{ text: t("machine.none") }];
    if (error) return [{ text: `${t("machine.error")} ` }, ...failure(error)];
    if (!report) return [{ text: checking ? t("machine.checking") : "" }];
    return [{ text: t(report.works ? "machine.works" : "machine.lacks") }];
  }

  byId("machine-again").addEventListener("click", check);

  return {
    setHello(value) {
      hello = value;
      show();
      if (shown && !report) check();
    },
    show(visible) {
      shown = visible;
      if (visible && !report) check();
    },
    translate: show,
  };
}

// A mode of another version's server, or a name that is a sentence already, is shown as it is.
function telemetry({ mode, telemetry: name }) {
  return KNOWN.includes(mode) && !name.startsWith("netdiag up") ? t(`telemetry.${mode}`, { telemetry: name }) : name;
}

function makeCheck({ name, status, detail, remedy }) {
  const item = make("li", { data: { status } },
    make("span", { className: "status" }, icon(ICONS[status] ?? "unknown"), word("check", status)),
    make("h2", { textContent: name, lang: "en" }),
    make("p", { textContent: detail, lang: "en" }),
  );
  if (remedy) item.append(make("p", { className: "remedy" }, make("b", { textContent: t("check.remedy") }), " ", make("span", { textContent: remedy, lang: "en" })));
  return item;
}
