// Keys for those who watch all day. They are silent where a key already means something: in fields, on buttons and links, in an open
// dialog, in a table that scrolls, and with a modifier held.
//
// Invariant: pure, but for the two properties of an event's target that it reads.

const TAKEN = "input, textarea, select, button, a, dialog, [role='region']";

const KEYS = {
  "1": "range.60", "2": "range.300", "3": "range.3600", "4": "range.all", " ": "pause", "+": "zoom.in", "=": "zoom.in", "-": "zoom.out",
  "ArrowLeft": "pan.left", "ArrowRight": "pan.right", "0": "reset", "l": "scale", "?": "help",
};

// The action that a key press asks for, or null.
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? null;
  const taken = event.target?.closest?.(TAKEN);
  if (!taken) return action;
  // A focused button keeps only the keys that press it.
  const own = event.key === " " || event.key.startsWith("Arrow");
  return taken.matches("button, a") && !own ? action : null;
}
