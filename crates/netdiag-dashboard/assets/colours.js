// The style sheet's colours for canvases, which know no custom properties. An element is asked, because `light-dark()` is only
// resolved there.

const known = new Map();

export function colour(name) {
  if (!known.has(name)) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    probe.hidden = true;
    document.body.append(probe);
    known.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return known.get(name);
}

// To be called when the theme changes.
export function forgetColours() {
  known.clear();
}
