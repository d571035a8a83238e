// Where an experiment is: the phase it is in, how long it still takes, and each arm's ticks beside the others'.
//
// Invariant: pure, and an arm's memory is bounded: above a few thousand ticks only the extremes of short spans are kept.

import { thin } from "./rows.js";

export const TICKS = ["rtt_p95", "retrans", "health", "anomaly", "current_tps", "generated_tps"];
const MOST_TICKS = 6000;

export const emptyArm = () => Object.fromEntries(["t", ...TICKS].map((name) => [name, []]));

export function withTicks(arm, batch) {
  const count = batch.seconds?.length ?? 0;
  for (let tick = 0; tick < count; tick++) {
    if (batch.seconds[tick] < arm.t.at(-1)) continue;
    arm.t.push(batch.seconds[tick]);
    for (const name of TICKS) arm[name].push(batch[name]?.[tick] ?? null);
  }
  if (arm.t.length <= MOST_TICKS) return arm;
  return thin(arm, (4 * arm.t.at(-1)) / MOST_TICKS);
}

export function progress(experiment, arms) {
  const at = Math.max(0, ...arms.map((arm) => arm.t.at(-1) ?? 0));
  const phase = experiment.phases.findLastIndex((each) => each.from_seconds <= at);
  return { at, phase, left: Math.max(0, experiment.seconds - at) };
}

// So many seconds as a length along the time axis, as CSS writes it.
export const share = (experiment, seconds) => `${(100 * Math.min(1, Math.max(0, seconds / experiment.seconds))).toFixed(3)}%`;

export const faults = (experiment) =>
  experiment.phases.filter((phase) => phase.fault).map((phase) => [phase.from_seconds, phase.to_seconds]);
