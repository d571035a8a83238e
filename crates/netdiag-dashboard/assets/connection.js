// Whether the page hears from the server, and how old what it shows is. Two things go wrong in the same silent way: the connection
// is gone, or the server has nothing new to tell. Each has its word here, and neither ever looks like a healthy link.
//
// Invariant: pure. Times are seconds of any steady clock, given by the caller; `status` never says `live` for data older than the
// server allows, and nothing is claimed of the link (`lightOf`, `stateOf`) unless it does.

// What a `now` may take to arrive before its data counts as old without the server saying so.
const GRACE_SECONDS = 1;
// The server tells something every few seconds, so a connection silent for this long is dead, though it may look open.
const SILENT_SECONDS = 20;
// Clocks that are set by the network differ by less.
const CLOCK_SECONDS = 10;
const LONGEST_WAIT = 15;
// A browser opens only six connections to a server, so a tab that nobody has seen for this long leaves its own to the others.
const HIDDEN_SECONDS = 60;

export const START = {
  phase: "connecting", attempt: 0, retryAt: null, heardAt: null, staleAfter: 2, age: null, toldAt: null, toldStale: false, full: false,
};

export function step(state, event, at) {
  switch (event.kind) {
    case "opening":
      return { ...state, phase: state.phase === "resting" ? "connecting" : state.phase, retryAt: null, heardAt: at };
    case "resting":
      return { ...state, phase: "resting", retryAt: null, heardAt: null };
    case "hello":
      return { ...state, staleAfter: event.staleAfter ?? state.staleAfter, heardAt: at, full: false };
    case "now":
      return { ...state, age: event.age ?? null, toldAt: at, toldStale: event.stale, heardAt: at };
    case "live":
      return { ...state, phase: "live", attempt: 0, heardAt: at };
    case "heard":
      return { ...state, heardAt: at };
    case "failed": {
      const wait = Math.min(LONGEST_WAIT, 2 ** state.attempt);
      return { ...state, phase: "lost", attempt: state.attempt + 1, retryAt: at + wait, full: state.full && event.refused === true };
    }
    case "full":
      return { ...state, full: true };
    default:
      throw new Error(`no such event: ${event.kind}`);
  }
}

export function status(state, at) {
  const age = state.age === null ? null : state.age + (at - state.toldAt);
  const old = state.toldStale || (age !== null && age > state.staleAfter + GRACE_SECONDS);
  return {
    connection: state.phase === "live" && old ? "stale" : state.phase === "resting" ? "connecting" : state.phase,
    age,
    full: state.full,
    retryIn: state.retryAt === null ? null : Math.max(0, state.retryAt - at),
  };
}

export function isSilent(state, at) {
  return state.heardAt !== null && at - state.heardAt > Math.max(SILENT_SECONDS, 3 * state.staleAfter);
}

// What the one who holds the connection is to do: `rest`, `fail`, `open`, or nothing (null). `open` says whether it is open, and
// `hiddenSince` since when nobody can see the page, null while somebody can.
export function due(state, at, { open, hiddenSince }) {
  if (hiddenSince !== null && at - hiddenSince >= HIDDEN_SECONDS) return state.phase === "resting" ? null : "rest";
  if (open) return isSilent(state, at) ? "fail" : null;
  return state.phase === "resting" || at >= state.retryAt ? "open" : null;
}

// The anomaly light: `true` and `false` are claims about the link as it is now.
export function lightOf(connection, anomaly) {
  return connection === "live" && anomaly !== null && anomaly !== undefined ? String(Boolean(anomaly)) : "unknown";
}

// The state that is shown for a hint's; of old data it is known only that it is old.
export function stateOf(connection, hint) {
  if (!hint) return "idle";
  return connection === "live" ? hint.state : "stale";
}

// The word for the connection in the header: an experiment that is over has no news to wait for, and that is no fault.
// Data from the future is not called live, though it arrives.
export function shownAs(connection, { over = false, ahead = 0, full = false }) {
  if (connection === "lost" && full) return "full";
  if (over && (connection === "live" || connection === "stale")) return "finished";
  return connection === "live" && ahead > 0 ? "ahead" : connection;
}

// By how many seconds the data's clock is ahead of this browser's; 0 for what two clocks may differ by.
export const aheadBy = (newest, now) => (newest - now > CLOCK_SECONDS ? newest - now : 0);

// What the state means, as the key of a message. The light outlasts what turned it on, which would otherwise look like a contradiction.
export const meaningOf = (state, light) => (light === "true" && state === "clear" ? "means.calming" : `means.${state}`);

// Whether a hint's health and anomaly come from anything. Without telemetry they are those of a link that is presumed healthy, which
// nobody has seen. `newest` tells of the newest row its flows, and whether any row up to it had a round trip; null without rows.
export function isMeasured(hint, newest) {
  if (!hint || newest === null || hint.state === "stale") return false;
  return hint.state !== "idle" || (newest.measured && newest.flows !== 0);
}

// Which banner is shown, if any. An experiment that is over measures nothing any more, which is no news.
export function bannerOf(connection, { hold = false, over = false, ahead = 0, full = false }) {
  if (connection === "lost") return full ? "full" : "lost";
  if (over) return null;
  if (connection === "stale" || hold) return connection === "stale" ? "stale" : "hold";
  return connection === "live" && ahead > 0 ? "ahead" : null;
}
