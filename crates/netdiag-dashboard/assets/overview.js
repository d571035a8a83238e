// The head of the overview: the light, the rate, the health, and why. It shows the newest hint, and says by itself only
// what the server cannot know: that the connection is gone, or that what is shown has grown old.
//
// Invariant: the light is on or off only for fresh data; otherwise it is unknown, whatever the last hint said.

import { aheadBy, bannerOf, isMeasured, lightOf, meaningOf, shownAs, stateOf } from "./connection.js";
import { byId, setAttribute, setIcon, setParts, setText } from "./dom.js";
import { clock, count, duration, fixed } from "./format.js";
import { language, reason, t, word } from "./i18n.js";
import { SEVERITY } from "./rows.js";

const CONNECTION_ICONS = { connecting: "wait", live: "ok", lost: "lost", stale: "stale", finished: "ok", ahead: "alert", full: "lost" };
// Reasons that the page tells by itself, with an age that goes on.
const AGE = /^telemetry is [\d.]+ s old$/;
const NEVER = "no telemetry yet";
const EMPTY = ["up", "csv", "hints", "experiment"];
const LIGHT_ICONS = { true: "alert", false: "ok", unknown: "unknown" };

export function makeOverview() {
  let hello = null;
  let hint = null;
  let experiment = null;
  let newest = null;
  let status = { connection: "connecting", age: null, retryIn: null, full: false };
  let said = { light: "unknown", connection: "connecting" };

  function show() {
    const light = lightOf(status.connection, isMeasured(hint, newest) ? hint.anomaly : null);
    showLight(light);
    showConnection();
    showHint();
    showBanner();
    showEmpty();
    say(light);
  }

  const isOver = () => hello?.mode === "experiment" && experiment?.running === false;

  const ahead = () => (newest === null ? 0 : aheadBy(newest.t, Date.now() / 1000));

  function showLight(light) {
    for (const id of ["light", "mini"]) {
      setAttribute(byId(id), "data-on", light);
      setIcon(byId(id), LIGHT_ICONS[light]);
    }
    setText(byId("light-word"), t(`light.${light}`));
    const title = light === "true" ? `▲ ${t("light.true")} – NetDiag-LLM` : "NetDiag-LLM";
    if (document.title !== title) document.title = title;
  }

  function showConnection() {
    const { connection } = status;
    const told = shownConnection();
    setAttribute(byId("connection"), "data-connection", told);
    setAttribute(document.documentElement, "data-connection", connection);
    setIcon(byId("connection"), CONNECTION_ICONS[told]);
    setText(byId("connection-word"), t(`connection.${told}`));
    // A rate that is no longer recommended is no news beside it.
    byId("mini").classList.toggle("over", told === "finished");
    setText(byId("age"), newest === null ? "–" : ahead() > 0 ? t("age.ahead", { ahead: duration(ahead()) }) : duration(status.age));
  }

  const shownConnection = () => shownAs(status.connection, { over: isOver(), ahead: ahead(), full: status.full });

  function showHint() {
    const measured = isMeasured(hint, newest);
    const health = measured ? hint.health : null;
    const state = stateOf(status.connection, hint);
    // On hold nothing is to be generated, whatever rate would hold afterwards.
    const rate = hint?.hold ? "0" : fixed(hint?.current_tps, 1);
    setText(byId("current-tps"), rate);
    setText(byId("mini-tps"), rate);
    byId("rate-hold").hidden = !hint?.hold;
    setText(byId("target-tps"), fixed(hint?.target_tps, 1));
    setText(byId("tps-range"), hint ? `${hint.min_tps}–${hint.max_tps}` : "–");
    setText(byId("health"), fixed(health, 2));
    setText(byId("anomaly-score"), fixed(measured ? hint.anomaly_score : null, 2));
    byId("gauge-fill").style.width = percent(hint?.hold ? 0 : hint?.current_tps / hint?.max_tps);
    byId("gauge-target").style.left = percent(hint?.target_tps / hint?.max_tps);
    byId("health-fill").style.width = percent(health);
    setAttribute(byId("state"), "data-state", state);
    const known = SEVERITY.includes(state);
    setIcon(byId("state"), known ? state : "unknown");
    setText(byId("state-word"), hint ? word("state", state) : "–");
    setText(byId("state-means"), hint && known ? t(meaningOf(state, lightOf(status.connection, newest && hint?.anomaly))) : "");
    setParts(byId("reason"), reason(toldReason()));
    byId("hold").hidden = !hint?.hold;
    setText(byId("flows"), count(newest?.flows));
    setText(byId("stalled"), count(newest?.stalled));
    setText(byId("source"), hint?.source ?? "");
  }

  function toldReason() {
    const text = hint?.reason ?? "";
    return AGE.test(text) && status.age !== null ? `telemetry is ${duration(status.age)} old` : text;
  }

  function showBanner() {
    const kind = bannerOf(status.connection, { hold: hint?.hold, over: isOver(), ahead: ahead(), full: status.full });
    byId("banner").hidden = kind === null;
    if (kind === null) return;
    setAttribute(byId("banner"), "data-kind", kind);
    setIcon(byId("banner"), kind === "hold" ? "stalled" : CONNECTION_ICONS[status.connection]);
    setText(byId("banner-title"), t(`banner.${kind}.title`));
    setParts(byId("banner-text"), [...why(kind), { text: bannerText(kind) }]);
  }

  // Why nothing comes any more, where the server knows more of it than the age.
  function why(kind) {
    const text = hint?.reason ?? "";
    if (kind !== "stale" || hint.state !== "stale" || text === "" || text === NEVER || AGE.test(text)) return [];
    return language() === "zh" ? [...reason(text), { text: "。" }] : [...reason(text[0].toUpperCase() + text.slice(1)), { text: ". " }];
  }

  function bannerText(kind) {
    if (kind === "ahead") return t("banner.ahead.text", { ahead: duration(ahead()) });
    if (kind === "hold") return t("banner.hold.text");
    if (kind === "stale") return newest === null ? t("banner.stale.never") : t("banner.stale.text", { age: duration(status.age) });
    const wait = duration(Math.ceil(status.retryIn ?? 0)).replace(".0", "");
    if (newest === null) return t("banner.lost.empty", { wait });
    const time = clock(newest.t);
    return status.retryIn === null ? t("banner.lost.now", { time }) : t("banner.lost.text", { time, wait });
  }

  function showEmpty() {
    // Only once the history is complete: until then rows may still come.
    const empty = hello !== null && newest === null && ["live", "stale"].includes(status.connection);
    const unwatched = hello?.mode === "up" && status.connection === "live" && hint?.state === "idle" && newest?.flows === 0;
    byId("empty").hidden = !empty && !unwatched;
    // Without a single round trip the charts would show nothing but presumptions.
    for (const id of ["tools", "charts"]) byId(id).hidden = empty || (unwatched && !newest.measured);
    if (!empty && !unwatched) return;
    setText(byId("empty-title"), t(hello.mode === "up" ? "empty.watched" : "empty.title"));
    setText(byId("empty-text"), EMPTY.includes(hello.mode) ? t(`empty.${hello.mode}`, { telemetry: hello.telemetry }) : "");
  }

  // Changes only: a screen reader that is told every tick is soon switched off.
  function say(light) {
    const words = [];
    if (light !== said.light) words.push(t("say.light", { word: t(`light.${light}`) }));
    const connection = shownConnection();
    if (connection !== said.connection) words.push(t("say.connection", { word: t(`connection.${connection}`) }));
    said = { light, connection };
    if (words.length > 0) setText(byId("announcer"), words.join(". "));
  }

  return {
    setHello(value) {
      hello = value;
      newest = null;
      hint = null;
      experiment = null;
    },
    setExperiment(value) {
      experiment = value;
      show();
    },
    setHint(value) {
      hint = value;
      show();
    },
    // The newest row's time and counts, and whether any row of its batch has a round trip.
    setNewest(value) {
      newest = { ...value, measured: value.measured || newest?.measured === true };
    },
    setStatus(value) {
      status = value;
      show();
    },
    translate: show,
  };
}

function percent(share) {
  return Number.isFinite(share) ? `${Math.min(100, Math.max(0, share * 100)).toFixed(1)}%` : "0%";
}
