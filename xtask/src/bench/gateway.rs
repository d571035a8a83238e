//! What the gateway costs beside nginx and a bare hyper proxy: the processor for each event, the wait that it adds, and the memory
//! of a stream.
//!
//! All are measured in one run on the same cores, with the same engine and the same clients at either end, which are a process of
//! their own (`crates/netdiag-gateway/examples/streams`). Paths take turns, round by round, and what is compared is the median of
//! the rounds' differences: whatever else the machine does meets all of them. A proxy's processor time is the kernel's account of
//! all its threads, less what it takes without streams; the kernel's own work on loopback is in it, on either side alike.

mod load;
mod peers;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::load::{Ends, Figures, Load};
use self::peers::{Kind, Proxy};
use super::{Bar, Bound, Options, Report};
use crate::median::median;

/// 2,000 events/s, in streams of a fast engine.
const BUSY: Load = Load { streams: 40, per_second: 50.0, seconds: 5.0 };
/// Rounds of it, and how many times as many with `--long`.
const ROUNDS: usize = 7;
const LONG: usize = 5;

/// 100 events/s, for a proxy that falls farther and farther behind with 2,000: LiteLLM was half a minute late with them.
const LIGHT: Load = Load { streams: 10, per_second: 10.0, seconds: 5.0 };

/// Many that read slowly.
const MANY: Load = Load { streams: 5000, per_second: 2.0, seconds: 15.0 };

/// How long a proxy without streams is watched.
const IDLE: Duration = Duration::from_secs(3);

/// Processor time for each event, of nginx's.
const CPU: f64 = 1.5;
/// Milliseconds more than through nginx.
const ADDED_MS: f64 = 0.3;
/// Kilobytes of a stream.
const STREAM_KB: f64 = 24.0;

/// A proxy, and what was measured of it.
struct Path {
    proxy: Proxy,
    /// Seconds of the processor per second without streams.
    idle: f64,
    rounds: Vec<Round>,
    /// Rounds of the light load, where somebody is measured who bears no other.
    light: Vec<Round>,
    many: Option<Many>,
}

/// One round through one proxy.
struct Round {
    /// Microseconds for each event.
    cpu_us: f64,
    figures: Figures,
}

/// Many streams through one proxy.
struct Many {
    /// Kilobytes for each stream.
    rss_kb: f64,
    cpu_us: f64,
    figures: Figures,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report {
        columns: vec![
            "through",
            "CPU us/event",
            "to nginx",
            "p50 ms",
            "p99 ms",
            "p99 over nginx",
            "KB/stream",
            "CPU us/event",
            "p99 ms",
            "late",
        ],
        ..Report::default()
    };
    // Both ends of thousands of streams; who is started has the same limit.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let mut ends = Ends::start()?;
    let mut kinds = vec![Kind::Nginx, Kind::Bare, Kind::Gateway];
    if options.litellm {
        kinds.push(Kind::Litellm);
    } else {
        report.absent.push("LiteLLM's proxy (not asked for: --litellm)".to_owned());
    }
    let mut paths = Vec::new();
    for kind in kinds {
        match Proxy::start(kind, ends.engine()) {
            Ok(proxy) => {
                let before = proxy.cpu()?;
                std::thread::sleep(IDLE);
                let idle = (proxy.cpu()? - before).as_secs_f64() / IDLE.as_secs_f64();
                paths.push(Path { proxy, idle, rounds: Vec::new(), light: Vec::new(), many: None });
            }
            // Without ourselves there is nothing to compare.
            Err(error) if kind == Kind::Gateway => return Err(error),
            Err(error) => report.absent.push(format!("{} ({error:#})", kind.name())),
        }
    }
    let mut direct = Vec::new();
    for round in 0..if options.long { ROUNDS * LONG } else { ROUNDS } {
        eprintln!("round {}", round + 1);
        direct.push(ends.run(ends.engine(), BUSY, || Ok(()))?.0);
        for path in paths.iter_mut().filter(|path| !path.is_slow()) {
            let measured = path.round(&mut ends, BUSY)?;
            path.rounds.push(measured);
        }
    }
    if paths.iter().any(Path::is_slow) {
        for round in 0..ROUNDS {
            eprintln!("light round {}", round + 1);
            for path in paths.iter_mut().filter(|path| path.proxy.kind() != Kind::Bare) {
                let measured = path.round(&mut ends, LIGHT)?;
                path.light.push(measured);
            }
        }
    }
    for path in paths.iter_mut().filter(|path| !path.is_slow()) {
        eprintln!("{} streams through {}", MANY.streams, path.proxy.kind().name());
        path.many(&mut ends)?;
    }
    let empty = String::new;
    let p99 = median(direct.iter().map(|figures| figures.p99_ms));
    let p50 = median(direct.iter().map(|figures| figures.p50_ms));
    let mut row = vec!["nothing".to_owned(), empty(), empty(), two(p50), two(p99)];
    row.resize_with(report.columns.len(), empty);
    report.rows.push(row);
    let of = |kind| paths.iter().find(|path: &&Path| path.proxy.kind() == kind);
    let nginx = of(Kind::Nginx);
    let quick = paths.iter().filter(|path| !path.is_slow());
    report.rows.extend(quick.map(|path| path.cells(nginx)));
    let light = paths.iter().filter(|path| !path.light.is_empty());
    report.rows.extend(light.map(|path| path.light_cells(nginx)));
    let Some(ours) = of(Kind::Gateway) else { anyhow::bail!("the gateway was not measured") };
    report.bars = ours.bars(nginx);
    Ok(report)
}

impl Path {
    /// Whether it bears the light load only.
    fn is_slow(&self) -> bool {
        self.proxy.kind() == Kind::Litellm
    }

    /// One round, as others have.
    fn round(&self, ends: &mut Ends, load: Load) -> anyhow::Result<Round> {
        let (figures, cpu) = ends.run(self.proxy.address(), load, || self.proxy.cpu())?;
        Ok(Round { cpu_us: self.per_event(cpu, &figures), figures })
    }

    /// Many streams, through a proxy that has had none.
    fn many(&mut self, ends: &mut Ends) -> anyhow::Result<()> {
        self.proxy = Proxy::start(self.proxy.kind(), ends.engine())?;
        std::thread::sleep(Duration::from_secs(1));
        let before = self.proxy.rss_kb()?;
        let proxy = &self.proxy;
        let mut rss = before;
        let (figures, cpu) = ends.run(proxy.address(), MANY, || {
            rss = rss.max(proxy.rss_kb()?);
            proxy.cpu()
        })?;
        self.many = Some(Many {
            rss_kb: (rss - before) / MANY.streams as f64,
            cpu_us: self.per_event(cpu, &figures),
            figures,
        });
        Ok(())
    }

    /// Microseconds for each event, less what it takes without.
    fn per_event(&self, [before, after]: [Duration; 2], figures: &Figures) -> f64 {
        let taken = (after - before).as_secs_f64() - self.idle * figures.seconds;
        taken * 1e6 / figures.events
    }

    fn cells(&self, nginx: Option<&Path>) -> Vec<String> {
        let name = self.proxy.kind().name();
        let mut cells = cells(name, &self.rounds, nginx.map(|nginx| &*nginx.rounds));
        cells.extend(match &self.many {
            Some(many) => [
                two(many.rss_kb),
                two(many.cpu_us),
                two(many.figures.p99_ms),
                (many.figures.late + many.figures.failed).to_string(),
            ],
            None => [const { String::new() }; 4],
        });
        cells
    }

    fn light_cells(&self, nginx: Option<&Path>) -> Vec<String> {
        let per_second = LIGHT.streams as f64 * LIGHT.per_second;
        let name = format!("{}, {per_second}/s", self.proxy.kind().name());
        let mut cells = cells(&name, &self.light, nginx.map(|nginx| &*nginx.light));
        cells.extend([const { String::new() }; 4]);
        cells
    }

    fn bars(&self, nginx: Option<&Path>) -> Vec<Bar> {
        let mut bars = Vec::new();
        let mut bar = |name: &str, value, limit, unit| {
            bars.push(Bar { name: name.to_owned(), value, bound: Bound::AtMost(limit), unit });
        };
        let [ratio, over] =
            nginx.map_or([f64::NAN; 2], |nginx| beside(&self.rounds, &nginx.rounds));
        bar("cpu_to_nginx", ratio, CPU, "");
        bar("p99_over_nginx", over, ADDED_MS, "ms");
        let late = |figures: &Figures| figures.late + figures.failed;
        let many = self.many.as_ref();
        bar("kb_per_stream", many.map_or(f64::NAN, |many| many.rss_kb), STREAM_KB, "KB");
        bar("late_streams", many.map_or(f64::NAN, |many| late(&many.figures)), 0.0, "");
        bars
    }
}

/// In each round the ratio of processor times, and the difference of the waits.
fn beside(ours: &[Round], theirs: &[Round]) -> [f64; 2] {
    let pairs = || ours.iter().zip(theirs);
    [
        median(pairs().map(|(ours, theirs)| ours.cpu_us / theirs.cpu_us)),
        median(pairs().map(|(ours, theirs)| ours.figures.p99_ms - theirs.figures.p99_ms)),
    ]
}

/// What rounds of one load say of a proxy.
fn cells(name: &str, rounds: &[Round], nginx: Option<&[Round]>) -> Vec<String> {
    let of = |of: fn(&Round) -> f64| two(median(rounds.iter().map(of)));
    let [ratio, over] = nginx.map_or([f64::NAN; 2], |nginx| beside(rounds, nginx)).map(two);
    vec![
        name.to_owned(),
        of(|round| round.cpu_us),
        ratio,
        of(|round| round.figures.p50_ms),
        of(|round| round.figures.p99_ms),
        over,
    ]
}

fn two(value: f64) -> String {
    if value.is_nan() { String::new() } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_left_blank() {
        assert_eq!([two(f64::NAN), two(0.126)], ["", "0.13"]);
    }
}
