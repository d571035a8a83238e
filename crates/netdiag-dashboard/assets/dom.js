// The few helpers that every view uses. Writing only what has changed keeps a page that updates twice a second from laying itself
// out twice a second.
//
// Invariant: no helper keeps anything between two calls, and a request ends in an answer or an error, never in a wait without end.

const ANSWER_MS = 15_000;

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
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
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  const text = await response.text();
  await rest();
  if (response.ok) return JSON.parse(text);
  throw new Error(errorIn(text) ?? `HTTP ${response.status}`);
}

// What a proxy answers in the server's place may be no JSON.
function errorIn(text) {
  try {
    return JSON.parse(text).error?.message;
  } catch {
    return undefined;
  }
}
