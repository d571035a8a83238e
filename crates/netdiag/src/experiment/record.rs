//! What an experiment recorded, and what it comes to: the data behind `summary.json` and `report.html`.
//!
//! Invariant: nothing here is better or worse than what was counted. An arm's tokens add up, `generated = acked + in flight at the
//! end + wasted`, or the arm is not in a record at all ([`TokenCounts::try_new`]).

use serde::Serialize;

/// A whole experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Version of this file.
    pub(crate) format: &'static str,
    pub(crate) scenario: String,
    pub(crate) description: String,
    pub(crate) seed: u64,
    /// Length of the link schedule.
    pub(crate) seconds: f64,
    /// Streams per arm.
    pub(crate) streams: usize,
    pub(crate) min_tps: f64,
    pub(crate) max_tps: f64,
    /// Which source measured: `ebpf` or `sockdiag`.
    pub(crate) source: String,
    /// Share of the machine's processors that was idle meanwhile, 0..=1; `None` if the kernel does not tell.
    pub(crate) idle_cpu: Option<f64>,
    pub(crate) phases: Vec<PhaseSpan>,
    pub(crate) arms: Vec<ArmRecord>,
}

/// A phase as it was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseSpan {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) from_seconds: f64,
    pub(crate) to_seconds: f64,
    /// Not a calm one.
    pub(crate) fault: bool,
}

/// One arm.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArmRecord {
    pub(crate) name: String,
    /// Whether the engine followed hints.
    pub(crate) paced: bool,
    pub(crate) tokens: TokenCounts,
    pub(crate) delivery: Delivery,
    pub(crate) rate: Rate,
    /// Drawn, and written to `hints.csv`.
    #[serde(skip)]
    pub(crate) ticks: Vec<Tick>,
}

/// Where the tokens went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TokenCounts {
    pub(crate) generated: u64,
    /// Acknowledged by the client's kernel.
    pub(crate) acked: u64,
    /// Generated and not acknowledged when the arm ended, for streams that were still open.
    pub(crate) in_flight: u64,
    /// Generated and never acknowledged, for streams that had ended.
    pub(crate) wasted: u64,
}

/// What clients saw, over all streams of the arm.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Delivery {
    pub(crate) requests: usize,
    pub(crate) finished: usize,
    pub(crate) left_early: usize,
    /// Mean over requests.
    pub(crate) qoe: Option<f64>,
    pub(crate) effective_tps: Option<f64>,
    /// Mean over requests.
    pub(crate) stall_ratio: Option<f64>,
    pub(crate) ttft_p50_seconds: Option<f64>,
    pub(crate) ttft_p95_seconds: Option<f64>,
    pub(crate) tpot_p50_seconds: Option<f64>,
    pub(crate) tpot_p99_seconds: Option<f64>,
}

/// What was recommended, tokens/s per stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Rate {
    pub(crate) mean_in_calm_tps: Option<f64>,
    pub(crate) mean_in_faults_tps: Option<f64>,
    pub(crate) lowest_tps: Option<f64>,
    /// From the end of a fault until the rate is back at 90 % of the maximum, median over those it came back from.
    pub(crate) recovery_seconds: Option<f64>,
}

/// One interval of an arm.
#[derive(Clone, Debug)]
pub(crate) struct Tick {
    /// Since the start of the schedule.
    pub(crate) seconds: f64,
    pub(crate) p95_rtt_ms: Option<f64>,
    pub(crate) retrans_segs: u64,
    pub(crate) health: f64,
    pub(crate) anomaly: bool,
    pub(crate) anomaly_score: f64,
    pub(crate) state: &'static str,
    pub(crate) current_tps: f64,
    pub(crate) target_tps: f64,
    pub(crate) hold: bool,
    /// All streams together.
    pub(crate) generated_tps: f64,
    pub(crate) delivered_tps: f64,
}

/// Counters that do not add up: a fault of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{generated} tokens were generated, but {acked} acked, {in_flight} in flight and {wasted} wasted are not so many"
)]
pub(crate) struct Unbalanced {
    generated: u64,
    acked: u64,
    in_flight: u64,
    wasted: u64,
}

impl Record {
    /// The name of the phase at a time.
    pub(crate) fn phase_at(&self, seconds: f64) -> &str {
        let phase = self.phases.iter().rev().find(|phase| seconds >= phase.from_seconds);
        phase.map_or("", |phase| &phase.name)
    }

    /// What was run, in a sentence.
    pub(crate) fn setting(&self) -> String {
        let arms: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        let idle = self.idle_cpu.map_or(String::new(), |idle| {
            format!(" The machine was idle for {:.0} % of its processors' time.", idle * 100.0)
        });
        format!(
            "{} streams per arm for {:.0} s, arms {}; rates from {} to {} tokens/s, seed {}, measured by {}.{idle}",
            self.streams,
            self.seconds,
            arms.join(", "),
            self.min_tps,
            self.max_tps,
            self.seed,
            self.source,
        )
    }
}

impl TokenCounts {
    /// Counts that add up.
    pub(crate) fn try_new(
        generated: u64,
        acked: u64,
        in_flight: u64,
        wasted: u64,
    ) -> Result<Self, Unbalanced> {
        match acked.checked_add(in_flight).and_then(|sum| sum.checked_add(wasted)) {
            Some(sum) if sum == generated => Ok(Self { generated, acked, in_flight, wasted }),
            _ => Err(Unbalanced { generated, acked, in_flight, wasted }),
        }
    }

    /// Wasted share of what was generated, 0..=1.
    pub(crate) fn waste(self) -> f64 {
        self.wasted as f64 / self.generated.max(1) as f64
    }
}

impl Rate {
    /// Of an arm's intervals. `back_at` is the rate that counts as recovered.
    pub(crate) fn of(ticks: &[Tick], phases: &[PhaseSpan], back_at: f64) -> Self {
        let fault_at = |seconds: f64| {
            let phase = phases
                .iter()
                .find(|phase| seconds > phase.from_seconds && seconds <= phase.to_seconds);
            phase.is_some_and(|phase| phase.fault)
        };
        let mean = |fault: bool| {
            let rates = ticks
                .iter()
                .filter(|tick| fault_at(tick.seconds) == fault)
                .map(|tick| tick.current_tps);
            let (count, sum) =
                rates.fold((0_u32, 0.0), |(count, sum), rate| (count + 1, sum + rate));
            (count > 0).then(|| sum / f64::from(count))
        };
        // Faults that follow one another are one.
        let ends = phases
            .windows(2)
            .filter(|pair| pair[0].fault && !pair[1].fault)
            .map(|pair| (pair[0].to_seconds, pair[1].to_seconds));
        let mut recoveries: Vec<f64> = ends
            .filter_map(|(end, until)| {
                let mut after =
                    ticks.iter().filter(|tick| tick.seconds > end && tick.seconds <= until);
                Some(after.find(|tick| tick.current_tps >= back_at)?.seconds - end)
            })
            .collect();
        recoveries.sort_by(f64::total_cmp);
        Self {
            mean_in_calm_tps: mean(false),
            mean_in_faults_tps: mean(true),
            lowest_tps: ticks.iter().map(|tick| tick.current_tps).reduce(f64::min),
            recovery_seconds: recoveries.get(recoveries.len() / 2).copied(),
        }
    }
}
