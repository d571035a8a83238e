// Whether the page hears from the server, and how old what it shows is. Two things go wrong in the same silent way: the connection
// is gone, or the server has nothing new to tell. Each has its word here, and neither ever looks like a healthy link.
//
// Invariant: pure. Times are seconds of any steady clock, given by the caller; `status` never says `live` for data older than the
// server allows.

// What a `now` may take to arrive before its data counts as old without the server saying so.
const GRACE_SECONDS = 1;
// The server tells something every few seconds, so a connection silent for this long is dead, though it may look open.
const SILENT_SECONDS = 20;
const LONGEST_WAIT = 15;

export const START = {
  phase: "connecting", attempt: 0, retryAt: null, heardAt: null, staleAfter: 2, age: null, toldAt: null, toldStale: false,
};

export function step(state, event, at) {
  switch (event.kind) {
    case "opening":
      return { ...state, retryAt: null, heardAt: at };
    case "hello":
      return { ...state, staleAfter: event.staleAfter ?? state.staleAfter, heardAt: at };
    case "now":
      return { ...state, age: event.age ?? null, toldAt: at, toldStale: event.stale, heardAt: at };
    case "live":
      return { ...state, phase: "live", attempt: 0, heardAt: at };
    case "heard":
      return { ...state, heardAt: at };
    case "failed": {
      const wait = Math.min(LONGEST_WAIT, 2 ** state.attempt);
      return { ...state, phase: "lost", attempt: state.attempt + 1, retryAt: at + wait };
    }
    default:
      throw new Error(`no such event: ${event.kind}`);
  }
}

export function status(state, at) {
  const age = state.age === null ? null : state.age + (at - state.toldAt);
  const old = state.toldStale || (age !== null && age > state.staleAfter + GRACE_SECONDS);
  return {
    connection: state.phase === "live" && old ? "stale" : state.phase,
    age,
    retryIn: state.retryAt === null ? null : Math.max(0, state.retryAt - at),
  };
}

export function isSilent(state, at) {
  return state.phase !== "lost" && state.heardAt !== null && at - state.heardAt > Math.max(SILENT_SECONDS, 3 * state.staleAfter);
}
