// What the reader chose and this browser remembers. Storage may be forbidden (private windows, policies): then choices last until the
// page is closed, and nothing else changes.
//
// Invariant: never throws, and gives only values from `allowed`.

const PREFIX = "netdiag.";

export function remembered(name, allowed, otherwise) {
  try {
    const value = localStorage.getItem(PREFIX + name);
    return allowed.includes(value) ? value : otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // Forbidden or full: the choice holds for this page.
  }
}

// The view to come back to after the login, whose form loses it. Only for this tab, and only once.
export function keepView(hash) {
  try {
    sessionStorage.setItem(`${PREFIX}view`, hash);
  } catch {
    // Forbidden or full: the overview it is.
  }
}

export function takeView() {
  try {
    const hash = sessionStorage.getItem(`${PREFIX}view`);
    sessionStorage.removeItem(`${PREFIX}view`);
    return hash ?? "";
  } catch {
    return "";
  }
}
