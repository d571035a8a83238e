//! What is the same for all arms: links, engine, readers, and what of them the machine must have room for.

use std::ops::RangeInclusive;
use std::time::Duration;

use netdiag_lab::engine::{Model, Settings as EngineSettings};
use netdiag_lab::metrics::Reader;
use netdiag_lab::sim::{CongestionControl, Rehearsal};
use netdiag_lab::{InvalidDivision, Portion, Scenario, Schedule};
use netdiag_pacer::TpsRange;
use netdiag_probe::SourceChoice;
use netdiag_telemetry::Tps;

use super::record::ClientGroup;

/// Most clients with a link of their own per arm, unless the scenario counts more; streams beyond share theirs. Each is a
/// namespace and two interfaces, and eight can be told apart in nobody's head.
const CLIENTS: usize = 8;

/// The engine can do 80 tokens/s for each of eight streams, so that what limits a stream is its link or its pace. Invented,
/// of the order of a small model on one data-centre GPU.
const STEP: Duration = Duration::from_micros(11_000);
const STEP_PER_SEAT: Duration = Duration::from_micros(150);

/// Lengths of answers, each as likely as the others: a few paragraphs, so that a minute has several per stream.
pub(super) const ANSWER_TOKENS: RangeInclusive<u32> = 200..=600;

/// One reader in five loses patience, after a silence of this length.
pub(super) const LEAVERS: f64 = 0.2;
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The streams of an arm begin within this time: engines do not get all their questions at once.
pub(super) const RAMP: Duration = Duration::from_secs(1);

/// A reader, for the metrics: 10 tokens/s is fast for a person (some 450 words a minute), and one second is what passes for
/// immediate.
const READING_TPS: f64 = 10.0;
const EXPECTED_TTFT: Duration = Duration::from_secs(1);

/// Most tokens of a run: each arrival is kept, 16 bytes for the files and as many again for the metrics, and 320 MB is what a
/// laptop has to spare.
const MOST_TOKENS: f64 = 10e6;

/// Open files of a stream: the client's socket, the engine's, and the engine's handle by which it asks the kernel what was
/// acknowledged.
const FILES_PER_STREAM: u64 = 3;

/// Those of a stream through the gateway: its two sockets and the pacer's handle on one of them come to these, and the engine's handle
/// is on the other end of the gateway's.
const FILES_PER_STREAM_VIA_GATEWAY: u64 = FILES_PER_STREAM + 3;

/// Open files of a link, as counted in runs: two interfaces, a namespace, a reservation of addresses, and what carries packets both
/// ways.
const FILES_PER_LINK: u64 = 13;

/// Open files of an arm beside these, as counted: its probe with programs and maps, its engine and its emulator.
const FILES_PER_ARM: u64 = 20;

/// Open files of the rest, of which some 15 are in use: results, and viewers of the dashboard.
const SPARE_FILES: u64 = 64;

/// How an arm's engine is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// As fast as it can, up to the highest rate.
    None,
    /// By the hints of the `classic` policy, client by client.
    Classic,
    /// By those of the `carry` policy, stream by stream.
    Carry,
}

impl Policy {
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Classic, Self::Carry];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Classic => "classic",
            Self::Carry => "carry",
        }
    }
}

/// What clients of an experiment connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The engine itself.
    Engine,
    /// The gateway, which stands before it.
    Gateway,
}

impl Via {
    pub(crate) const ALL: [Self; 2] = [Self::Engine, Self::Gateway];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Gateway => "gateway",
        }
    }

    /// Which arms can be: the gateway has no pace by health.
    pub(crate) fn has(self, policy: Policy) -> bool {
        self == Self::Engine || policy != Policy::Classic
    }
}

/// What is the same for all arms.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    /// One for each client.
    pub(crate) schedules: Vec<Schedule>,
    /// Of each client, which of the groups it belongs to.
    pub(crate) group_of: Vec<usize>,
    pub(crate) groups: Vec<ClientGroup>,
    pub(crate) via: Via,
    /// Of what is left to chance on the links.
    pub(crate) seed: u64,
    /// Of questions and readers; the links' unless another is asked for.
    pub(crate) reader_seed: u64,
    pub(crate) streams: usize,
    pub(crate) range: TpsRange,
    pub(crate) interval: Duration,
    /// Any, until it is known what this process may do.
    pub(crate) source: SourceChoice,
    pub(crate) duration: Duration,
}

impl Conditions {
    /// Those of `scenario` with so many streams.
    pub(crate) fn new(
        scenario: &Scenario,
        streams: usize,
        range: TpsRange,
        interval: Duration,
    ) -> Result<Self, InvalidDivision> {
        let clients = divide(scenario, streams)?;
        let schedules = scenario.schedules();
        let of_all = |group: usize| std::iter::repeat_n(group, clients[group]);
        let group_of: Vec<usize> = (0..clients.len()).flat_map(of_all).collect();
        let groups = scenario.groups().iter().zip(&clients).map(|(group, clients)| ClientGroup {
            name: group.name().to_owned(),
            clients: *clients,
        });
        Ok(Self {
            schedules: group_of.iter().map(|&group| schedules[group].clone()).collect(),
            groups: groups.collect(),
            group_of,
            via: Via::Engine,
            seed: scenario.seed(),
            reader_seed: scenario.seed(),
            streams,
            range,
            interval,
            source: SourceChoice::Auto,
            duration: scenario.duration(),
        })
    }

    /// The same for the simulator, which says beforehand what the experiment would measure.
    pub(crate) fn rehearsal(&self) -> anyhow::Result<Rehearsal> {
        Ok(Rehearsal {
            schedules: self.schedules.clone(),
            streams: self.streams,
            model: engine().model,
            output_tokens: ANSWER_TOKENS,
            leavers: LEAVERS,
            patience: PATIENCE,
            reader: reader()?,
            ramp: RAMP,
            duration: self.duration,
            range: self.range,
            control: congestion_control(),
            link_seed: self.seed,
        })
    }

    /// Open files that so many arms need at once.
    pub(crate) fn open_files(&self, arms: usize) -> u64 {
        let (streams, links) = (self.streams as u64, self.schedules.len() as u64);
        let per_stream = match self.via {
            Via::Engine => FILES_PER_STREAM,
            Via::Gateway => FILES_PER_STREAM_VIA_GATEWAY,
        };
        let of_arm = streams * per_stream + links * FILES_PER_LINK + FILES_PER_ARM;
        arms as u64 * of_arm + SPARE_FILES
    }

    /// The longest run that there is memory for, if this one is longer.
    pub(crate) fn longest(&self, arms: usize) -> Option<Duration> {
        let seats = self.streams.min(engine().model.seats.get());
        let each = (STEP + STEP_PER_SEAT * seats as u32).as_secs_f64().recip();
        let tps = arms as f64 * seats as f64 * each.min(self.range.max().get());
        let longest = Duration::from_secs_f64(MOST_TOKENS / tps);
        (self.duration > longest).then_some(longest)
    }

    /// What engine and readers are, for people.
    pub(crate) fn model(&self) -> String {
        let seats = engine().model.seats;
        format!(
            "The engine pretends: it has {seats} seats, and {} A step takes {} ms and {} ms more for each seat taken, and text \
             comes from a file. Answers have {} to {} tokens. A reader reads {READING_TPS:.0} tokens/s; one in {:.0} is \
             impatient and leaves after {:.0} s without a token, with a new question at once.",
            if self.streams > seats.get() {
                format!(
                    "{} of {} streams wait in its queue at any time.",
                    self.streams - seats.get(),
                    self.streams
                )
            } else {
                "more streams than that would wait in its queue.".to_owned()
            },
            STEP.as_secs_f64() * 1e3,
            STEP_PER_SEAT.as_secs_f64() * 1e3,
            ANSWER_TOKENS.start(),
            ANSWER_TOKENS.end(),
            LEAVERS.recip(),
            PATIENCE.as_secs_f64(),
        )
    }
}

/// How many clients of each group have a link of their own.
fn divide(scenario: &Scenario, streams: usize) -> Result<Vec<usize>, InvalidDivision> {
    let (mut counted, mut shares) = (0_usize, 0);
    for group in scenario.groups() {
        match group.portion() {
            Portion::Count(count) => counted = counted.saturating_add(count),
            Portion::Share(_) => shares += 1,
        }
    }
    // Where all are counted there are neither more nor fewer. Streams beyond share them.
    let most = if shares == 0 { counted } else { CLIENTS.max(counted.saturating_add(shares)) };
    scenario.divide(streams.min(most))
}

/// The engine of every arm.
pub(super) fn engine() -> EngineSettings {
    let model = Model { step: STEP, step_per_seat: STEP_PER_SEAT, ..Model::default() };
    EngineSettings { model, ..EngineSettings::default() }
}

/// Who reads.
pub(super) fn reader() -> anyhow::Result<Reader> {
    Ok(Reader { rate: Tps::try_new(READING_TPS)?, expected_ttft: EXPECTED_TTFT })
}

/// What this machine's kernel decides windows by, which a new namespace takes over. A prediction is of the experiment on this
/// machine; where nobody can tell, it is Linux's default.
fn congestion_control() -> CongestionControl {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.map_or_else(
        |_| CongestionControl::default(),
        |name| CongestionControl::of_name(name.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(groups: &str) -> Scenario {
        let text = format!("[[phase]]\nkind = \"calm\"\nduration = \"10s\"\n{groups}");
        Scenario::parse(text.as_bytes(), "test", &mut |_| unreachable!("no trace")).expect("valid")
    }

    #[test]
    fn groups_that_count_have_their_clients() {
        let counts = |counts: &[usize]| {
            let group = |count| format!("[[group]]\nname = \"a\"\ncount = {count}\n");
            scenario(&counts.iter().map(group).collect::<String>())
        };
        assert_eq!(divide(&counts(&[12]), 12).ok(), Some(vec![12]));
        assert_eq!(divide(&counts(&[3, 2]), 50).ok(), Some(vec![3, 2]));
        assert!(divide(&counts(&[12]), 8).is_err());
        let mixed = "[[group]]\nname = \"a\"\ncount = 10\n[[group]]\nname = \"b\"\nshare = 1\n";
        assert_eq!(divide(&scenario(mixed), 40).ok(), Some(vec![10, 1]));
        assert_eq!(divide(&scenario(""), 40).ok(), Some(vec![8]));
        assert_eq!(divide(&scenario(""), 3).ok(), Some(vec![3]));
    }

    #[test]
    fn a_run_has_room_for_what_it_keeps() {
        let range = TpsRange::try_new(
            Tps::try_new(5.0).expect("valid"),
            Tps::try_new(80.0).expect("valid"),
        )
        .expect("valid");
        let of = |hours: u64, streams| {
            let scenario = scenario("").fit(Duration::from_secs(hours * 3600)).expect("fits");
            let interval = Duration::from_millis(500);
            Conditions::new(&scenario, streams, range, interval).expect("fits")
        };
        assert_eq!(of(2, 8).longest(2), None);
        let longest = of(24, 8).longest(2).expect("too long");
        assert!((2.0..2.5).contains(&(longest.as_secs_f64() / 3600.0)), "{longest:?}");
        // So many were open in runs of 8 and 100 streams.
        assert!((297..400).contains(&of(1, 8).open_files(2)));
        assert!((432..550).contains(&of(1, 100).open_files(1)));
        assert!(of(1, 200).model().contains("168 of 200 streams wait"), "{}", of(1, 200).model());
    }
}
