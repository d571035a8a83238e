//! From the bytes of a file to a scenario: TOML, then values, then links.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::fields::{Field, Fields, Source, nearest};
use super::file::bounded;
use super::phase::{Phase, PhaseKind};
use super::settings::{Misfit, Set, Settings, Sides};
use super::{Group, Portion, Scenario};
use crate::cellular::cellular;
use crate::queue::{Discipline, Queue, QueueLength};
use crate::spec::{Capacity, Duplex};
use crate::trace::Trace;
use crate::units;

/// The largest file: a scenario is some dozen lines, and a trace of a day at 2 Mbit/s has 130 MB.
const LARGEST_SCENARIO: u64 = 1 << 20;
const LARGEST_TRACE: u64 = 1 << 28;

/// The shortest and the longest phase: what is sampled twice a second shows nothing of a shorter one.
const PHASE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(24 * 60 * 60);

/// The most of each: more would be memory for what nobody can tell apart.
const MOST_PHASES: usize = 1000;
const MOST_GROUPS: usize = 32;
const MOST_TRACES: usize = 32;

/// What a sum of shares may be off by: three times a third is more than one in some roundings.
const ROUNDING: f64 = 1e-9;

const TOP: [&str; 5] = ["description", "seed", "link", "phase", "group"];
const LINK: [&str; 9] =
    ["delay", "jitter", "loss", "burst", "rate", "trace", "queue", "up", "down"];
const DIRECTION: [&str; 7] = ["delay", "jitter", "loss", "burst", "rate", "trace", "queue"];
const OF_PHASE: [&str; 12] = [
    "name", "kind", "duration", "delay", "jitter", "loss", "burst", "rate", "trace", "queue", "up",
    "down",
];
const OF_GROUP: [&str; 5] = ["name", "share", "count", "phases", "link"];
const OF_TRACE: [&str; 3] = ["model", "mean", "seed"];

/// Why a scenario cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Neither shipped nor a file.
    #[error("no scenario `{name}`: give the path of a file, or one of {known}")]
    Unknown {
        /// As given.
        name: String,
        /// The shipped ones.
        known: String,
    },
    /// The file cannot be read.
    #[error("{origin}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        origin: String,
        /// Why not.
        source: io::Error,
    },
    /// The file says what cannot be.
    #[error("{origin}:{line}: {message}")]
    Invalid {
        /// The file, or the name of a shipped scenario.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// Key, value and remedy.
        message: String,
    },
}

impl Scenario {
    /// Reads a scenario from the file at `path`, and the traces that it names from files beside it.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let origin = path.display().to_string();
        let text = bounded(path, LARGEST_SCENARIO)
            .map_err(|source| ScenarioError::Unreadable { origin: origin.clone(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut scenario =
            Self::parse(&text, &origin, &mut |trace| bounded(&folder.join(trace), LARGEST_TRACE))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(scenario)
    }

    /// Reads a scenario from the text of its file. `origin` names the file in complaints and the scenario itself;
    /// `load_trace` gives the bytes of a trace's file, as it is named in the scenario.
    pub fn parse(
        text: &[u8],
        origin: &str,
        load_trace: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, ScenarioError> {
        let readable = std::str::from_utf8(text).map_err(|error| {
            let source = Source { origin, text: text.get(..error.valid_up_to()).unwrap_or(text) };
            let line = source.line(error.valid_up_to());
            source.wrong(line, "not UTF-8 text; save the file as UTF-8")
        })?;
        let source = Source { origin, text };
        let table = DeTable::parse(readable).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            source.wrong(source.line(at), format!("not valid TOML: {message}"))
        })?;
        let top = source.fields(table.get_ref(), 1, "the file", &TOP)?;
        let mut reader = Reader { source, load_trace, traces: HashMap::new(), count: 0 };
        reader.scenario(&top)
    }
}

struct Reader<'t, 'l> {
    source: Source<'t>,
    load_trace: &'l mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
    /// Those read from files already.
    traces: HashMap<&'t str, Trace>,
    /// How many have been read or made up.
    count: usize,
}

/// A phase as the file has it.
struct RawPhase {
    phase: Phase,
    line: usize,
    sides: Sides,
}

impl<'t> Reader<'t, '_> {
    fn scenario(&mut self, top: &Fields<'t>) -> Result<Scenario, ScenarioError> {
        let description = top.read("description", Field::plain)?.unwrap_or_default().to_owned();
        let seed = top.read("seed", |field| field.whole(0))?.unwrap_or(1);
        let base = match top.get("link") {
            Some(field) => self.sides(&field.table("[link]", &LINK)?)?,
            None => Sides::default(),
        };
        let phases = top
            .tables("phase", "[[phase]]", &OF_PHASE)?
            .iter()
            .map(|fields| self.phase(fields))
            .collect::<Result<Vec<_>, _>>()?;
        if phases.is_empty() {
            return Err(top.wrong("no phases: write at least one [[phase]] with kind and duration"));
        }
        if let Some(over) = phases.get(MOST_PHASES) {
            let message = format!("more than {MOST_PHASES} phases: let the scenario be repeated");
            return Err(self.source.wrong(over.line, message));
        }
        let groups = top.tables("group", "[[group]]", &OF_GROUP)?;
        if let Some(over) = groups.get(MOST_GROUPS) {
            return Err(
                over.wrong(format!("more than {MOST_GROUPS} groups: join those that are alike"))
            );
        }
        let mut shared = 0.0;
        let mut groups = groups
            .iter()
            .map(|fields| {
                let group = self.group(fields, &base, &phases)?;
                if let Portion::Share(share) = group.portion {
                    shared += share;
                }
                if shared > 1.0 + ROUNDING {
                    let percent = shared * 100.0;
                    let message = format!(
                        "with group {} the shares add up to {percent:.0} %: make them 100 % at most",
                        group.name
                    );
                    return Err(fields.wrong(message));
                }
                Ok(group)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if groups.is_empty() {
            let links = self.links(&base, &Sides::default(), &phases, |_| true)?;
            groups.push(Group { name: "all".to_owned(), portion: Portion::Share(1.0), links });
        }
        let phases = phases.into_iter().map(|raw| raw.phase).collect();
        let name = self.source.origin.to_owned();
        Ok(Scenario { name, description, seed, phases, groups })
    }

    fn phase(&mut self, fields: &Fields<'t>) -> Result<RawPhase, ScenarioError> {
        let names = PhaseKind::ALL.map(PhaseKind::name);
        let kind = fields.need("kind", &format!("one of {}", names.join(", ")))?;
        let text = kind.text()?;
        let found = PhaseKind::ALL.into_iter().find(|kind| kind.name() == text);
        let kind =
            found.ok_or_else(|| kind.wrong(&format!("unknown kind{}", nearest(text, &names))))?;
        let written = fields.need("duration", "how long it takes, such as \"10s\"")?;
        let duration = written.duration()?;
        if !PHASE.contains(&duration) {
            let (least, most) = (PHASE.start(), PHASE.end());
            return Err(written.wrong(&format!("must be from {least:?} to {most:?}")));
        }
        let name = fields.read("name", Field::plain)?.unwrap_or(kind.name()).to_owned();
        let sides = self.sides(fields)?;
        if kind == PhaseKind::Blackout
            && let Some((line, key)) = sides.losses()
        {
            let message =
                format!("{key} in a blackout, in which nothing comes through: leave it out");
            return Err(self.source.wrong(line, message));
        }
        Ok(RawPhase { phase: Phase { name, kind, duration }, line: fields.line, sides })
    }

    fn group(
        &mut self,
        fields: &Fields<'t>,
        base: &Sides,
        phases: &[RawPhase],
    ) -> Result<Group, ScenarioError> {
        let name = fields.need("name", "what to call these clients")?.plain()?.to_owned();
        let share = fields.read("share", Field::share)?;
        let count = fields.read("count", |field| field.whole(1))?;
        let portion = match (share, count) {
            (Some(share), None) if share > 0.0 => Portion::Share(share),
            (None, Some(count)) => Portion::Count(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => {
                let message = format!("group {name} needs either a share above 0 or a count");
                return Err(fields.wrong(message));
            }
        };
        let own = match fields.get("link") {
            Some(field) => self.sides(&field.table("[group.link]", &LINK)?)?,
            None => Sides::default(),
        };
        let chosen = fields.get("phases");
        let names = chosen.map(|field| field.names()).transpose()?;
        if let (Some(field), Some(names)) = (&chosen, &names) {
            let known: Vec<&str> = phases.iter().map(|raw| raw.phase.name()).collect();
            if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                let reason = format!("no phase is called {unknown}{}", nearest(unknown, &known));
                return Err(field.wrong(&reason));
            }
        }
        let takes_part =
            |phase: &Phase| names.as_ref().is_none_or(|names| names.contains(&phase.name()));
        let links = self.links(base, &own, phases, takes_part)?;
        Ok(Group { name, portion, links })
    }

    /// The link in each phase: as `base` and `own` say, and the phase where the group takes part in it.
    fn links(
        &self,
        base: &Sides,
        own: &Sides,
        phases: &[RawPhase],
        takes_part: impl Fn(&Phase) -> bool,
    ) -> Result<Vec<Duplex>, ScenarioError> {
        let [base_up, base_down] = base.directions();
        let [own_up, own_down] = own.directions();
        let (up, down) = (base_up.under(&own_up), base_down.under(&own_down));
        let link = |raw: &RawPhase| {
            let [in_up, in_down] = raw.sides.directions();
            let misfit = |misfit: Misfit| {
                let message = format!("phase {}: {}", raw.phase.name(), misfit.message);
                self.source.wrong(misfit.line, message)
            };
            let side = |calm: &Settings, said: &Settings| match takes_part(&raw.phase) {
                true => self.direction(calm, said, raw)?.build().map_err(misfit),
                false => calm.build().map_err(misfit),
            };
            let link = Duplex { up: side(&up, &in_up)?, down: side(&down, &in_down)? };
            let is_silent = raw.phase.kind == PhaseKind::Blackout && takes_part(&raw.phase);
            Ok(if is_silent {
                Duplex { up: link.up.blackout(), down: link.down.blackout() }
            } else {
                link
            })
        };
        phases.iter().map(link).collect()
    }

    /// What a phase makes of one direction of a calm link, given what it says itself.
    fn direction(
        &self,
        calm: &Settings,
        said: &Settings,
        raw: &RawPhase,
    ) -> Result<Settings, ScenarioError> {
        let mut settings = calm.under(&raw.phase.kind.settings(raw.line)).under(said);
        if let (PhaseKind::Jitter, None, Some(jitter)) =
            (raw.phase.kind, &said.delay, &settings.jitter)
        {
            let delay = calm.delay.as_ref().map_or(Duration::ZERO, |delay| delay.value);
            let value = delay.saturating_add(jitter.value);
            settings.delay = Some(Set { value, line: jitter.line });
        }
        let is_traced = matches!(&settings.capacity, Some(Set { value: Capacity::Trace(_), .. }));
        if raw.phase.kind == PhaseKind::Trace && !is_traced {
            let message = format!(
                "phase {} has no trace in one direction: add trace = \"FILE\", or trace = {{ model = \"cellular\", mean = \
                 \"6mbit\" }}",
                raw.phase.name()
            );
            return Err(self.source.wrong(raw.line, message));
        }
        Ok(settings)
    }

    fn sides(&mut self, fields: &Fields<'t>) -> Result<Sides, ScenarioError> {
        let both = self.settings(fields)?;
        let mut direction = |key, place| match fields.get(key) {
            Some(field) => self.settings(&field.table(place, &DIRECTION)?),
            None => Ok(Settings::default()),
        };
        let up = direction("up", "up")?;
        let down = direction("down", "down")?;
        Ok(Sides { both, up, down })
    }

    fn settings(&mut self, fields: &Fields<'t>) -> Result<Settings, ScenarioError> {
        let rate = fields.set("rate", |field| field.bit_rate().map(Capacity::Rate))?;
        let capacity = match (rate, fields.get("trace")) {
            (Some(_), Some(trace)) => {
                return Err(trace.wrong("the link has a rate as well: give one of the two"));
            }
            (rate, None) => rate,
            (None, Some(field)) => {
                Some(Set { value: Capacity::Trace(self.trace(&field)?), line: field.line })
            }
        };
        Ok(Settings {
            delay: fields.set("delay", Field::duration)?,
            jitter: fields.set("jitter", Field::duration)?,
            loss: fields.set("loss", Field::share)?,
            burst: fields.set("burst", Field::packets)?,
            capacity,
            queue: fields.set("queue", queue)?,
        })
    }

    fn trace(&mut self, field: &Field<'t>) -> Result<Trace, ScenarioError> {
        self.count += 1;
        if self.count > MOST_TRACES {
            let remedy = "put one that phases share into [link]";
            return Err(field.wrong(&format!("more than {MOST_TRACES} traces: {remedy}")));
        }
        if field.is_table() {
            let fields = field.table("a made-up trace", &OF_TRACE)?;
            let model = fields.need("model", "the one there is is \"cellular\"")?;
            if model.text()? != "cellular" {
                return Err(model.wrong("unknown model; known is \"cellular\""));
            }
            let mean = fields.need("mean", "what it carries, such as \"6mbit\"")?;
            let seed = fields.read("seed", |field| field.whole(0))?.unwrap_or(1);
            return cellular(mean.bit_rate()?, seed)
                .map_err(|error| mean.wrong(&error.to_string()));
        }
        let name = field.text()?;
        if let Some(trace) = self.traces.get(name) {
            return Ok(trace.clone());
        }
        let bytes = (self.load_trace)(name).map_err(|error| {
            let where_it_is = "(a trace's path is relative to the scenario's folder)";
            field.wrong(&format!("cannot be read: {error} {where_it_is}"))
        })?;
        let trace = Trace::parse(&bytes).map_err(|error| field.wrong(&error.to_string()))?;
        self.traces.insert(name, trace.clone());
        Ok(trace)
    }
}

/// `codel`, `200ms`, `drophead 64kB`, `codel 100 packets`.
fn queue(field: &Field<'_>) -> Result<Queue, ScenarioError> {
    let text = field.text()?.trim();
    let named = |name: &str| text.strip_prefix(name).map(str::trim_start);
    let (discipline, length) = match (named("droptail"), named("drophead"), named("codel")) {
        (Some(length), _, _) => (Discipline::DropTail, length),
        (_, Some(length), _) => (Discipline::DropHead, length),
        (_, _, Some(length)) => (Discipline::CoDel, length),
        _ => (Discipline::DropTail, text),
    };
    let packets = length.strip_suffix("packets").and_then(|number| number.trim().parse().ok());
    let length = match (packets, units::duration(length), units::bytes(length)) {
        _ if length.is_empty() && !text.is_empty() => Queue::default().length(),
        (Some(packets), _, _) => QueueLength::Packets(packets),
        (_, Ok(time), _) => QueueLength::Time(time),
        (_, _, Ok(bytes)) => QueueLength::Bytes(bytes),
        _ => {
            return Err(field.wrong(
                "must be a length such as 200ms, 64kB or 100 packets, behind droptail (which may be left \
                 out), drophead or codel",
            ));
        }
    };
    Queue::try_new(discipline, length).map_err(|error| field.wrong(&error.to_string()))
}
