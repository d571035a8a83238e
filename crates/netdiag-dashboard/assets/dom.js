// The few helpers that every view uses. Writing only what has changed keeps a page that updates twice a second from laying itself
// out twice a second.
//
// Invariant: no helper keeps anything between two calls, and a request ends in an answer or an error, never in a wait without end.

import { keepView } from "./preferences.js";

const ANSWER_MS = 15_000;

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Text in parts, each of its own language if it has one: [{ text, lang }].
export function setParts(element, parts) {
  if (element.textContent === parts.map(({ text }) => text).join("")) return;
  element.replaceChildren(...parts.map(({ text, lang }) => (lang ? make("span", { textContent: text, lang }) : text)));
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function setIcon(element, name) {
  setAttribute(element.querySelector("use"), "href", `#i-${name}`);
}

export function icon(name, className = "icon") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// An element with properties and children; `data` sets data-attributes.
export function make(tag, { data = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

// Offers a blob as a file to save.
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  // The browser has taken hold of the blob once the click's task is over, at the latest after a minute.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// The JSON that the server answers, or an error with its own words. `rest` is waited for before the text is read into values, which
// takes a while where there is much of it.
export async function ask(path, rest = () => {}) {
  const { response, text } = await answerTo(path).catch((cause) => {
    throw without(cause.name === "TimeoutError" ? "timeout" : "network", cause);
  });
  await rest();
  if (response.status === 401) session().catch(() => {});
  if (!response.ok) throw new Error(errorIn(text) ?? `HTTP ${response.status}`);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw without("odd", cause);
  }
}

async function answerTo(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  return { response, text: await response.text() };
}

// The browser's own words are in a language of its choice, so the page has a sentence for each kind.
const without = (kind, cause) => Object.assign(new Error(kind, { cause }), { kind });

// The status that the session has. One that is over leads to the login page, which the server gives in this page's place.
export async function session() {
  const { status } = await fetch("api/session", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  if (status === 401) {
    keepView(location.hash);
    location.reload();
  }
  return status;
}

// What a proxy answers in the server's place may be no JSON.
function errorIn(text) {
  try {
    return JSON.parse(text).error?.message;
  } catch {
    return undefined;
  }
}
