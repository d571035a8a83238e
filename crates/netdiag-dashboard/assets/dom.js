// The few helpers that every view uses. Writing only what has changed keeps a page that updates twice a second from laying itself
// out twice a second.

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
