//! `netdiag serve`: hints from a CSV that another process writes.
//!
//! A row says when it was written by a clock that may be another's, or may jump. So its age is read off that clock only
//! where there is no better evidence: for rows that were already there when the file was first seen. A row that comes
//! while we watch is as fresh as its coming.
//!
//! Invariant: age only grows until the next row comes, whatever the clocks do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use netdiag_hints::Board;
use netdiag_pacer::{Classic, Observation, TpsRange};
use netdiag_telemetry::{Row, Scope};
use tokio::sync::watch;

use crate::args::{RateArgs, ServerArgs, StaleArgs};
use crate::csv_file::{CsvTail, Poll};
use crate::failure::UsageError;
use crate::hint_server::HintServer;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// How often the file is looked at: at twice the usual pace of rows, none waits for longer than it took to measure.
const POLL: Duration = Duration::from_millis(250);

/// Rows this old are stale unless `--stale-after` says otherwise: ten rows of the usual pace.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// The interval of a first row, and of rows whose timestamps do not tell: the usual pace.
const USUAL_INTERVAL: Duration = Duration::from_millis(500);

/// The longest interval that a pause between two rows is taken for.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// A complaint that stays true is repeated this often.
const REPEAT: Duration = Duration::from_secs(60);

/// Serve hints from a CSV file that another process writes
///
/// Follows the file while it grows, also when it is rotated, truncated, replaced, or not there yet. Reads what `netdiag
/// agent` writes and files with at least timestamp, avg_rtt_us, p95_rtt_us and retrans_count. A file speaks for the
/// host as a whole: there are no hints per peer or stream. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Follow this file.
    ///
    /// If it is absent, hints are `stale` until it appears. Default: net_data.csv.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_CSV",
        default_value = "net_data.csv",
        help_heading = "Input"
    )]
    csv: PathBuf,

    /// Serve hints on this port.
    ///
    /// From 0 to 65535; 0 takes any free port, and the one taken is printed at the start. Wins over the port in
    /// --listen. (For `up` and `agent`, --port selects flows instead.) Default: the port in --listen.
    #[arg(long, value_name = "N", env = "NETDIAG_SERVE_PORT", help_heading = "Hint server", value_parser = crate::args::values::any_port)]
    port: Option<u16>,

    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    stale: StaleArgs,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let range = args.rates.validate(places)?;
    let stop = Stop::on_signals()?;
    let server = HintServer::bind(&args.server, args.port)?;
    let mut follower = Follower::new(&args.csv, range);
    let unusable = |error: anyhow::Error| {
        UsageError::because(format!("--csv {}: cannot be used", args.csv.display()), error)
    };
    let board = follower.look().map_err(|error| unusable(error.into()))?;
    if let Some(wrong) = follower.wrong.take() {
        return Err(unusable(wrong.into()).into());
    }
    let (boards, newest) = watch::channel(Arc::new(follower.board()));
    if let Some(board) = board {
        boards.send_replace(Arc::new(board));
    }
    let waiting = if follower.present { "" } else { " (not there yet)" };
    say(&format!(
        "netdiag: hints on {} ({} to {} tokens/s); following {}{waiting}",
        server.url(),
        range.min(),
        range.max(),
        args.csv.display(),
    ));
    let watching = stop.clone();
    let thread = std::thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || follower.run(&boards, &watching))
        .context("cannot start the thread that follows the file")?;
    let stale_after = args.stale.stale_after.unwrap_or(STALE_AFTER);
    let served = server.run(newest, range, stale_after, args.stale.when_stale, &stop);
    stop.ask();
    let followed =
        thread.join().map_err(|_| anyhow::anyhow!("the thread that follows the file panicked"));
    served.and(followed)
}

/// Turns new rows into boards.
struct Follower {
    path: PathBuf,
    tail: CsvTail,
    pacer: Classic,
    /// Timestamp of the last row.
    last: Option<Duration>,
    /// When the last row was written, as far as we can tell.
    sampled_at: Option<Instant>,
    present: bool,
    /// What was wrong with the lines read last.
    wrong: Option<netdiag_telemetry::csv::CsvError>,
    complained: Option<(String, Instant)>,
}

impl Follower {
    fn new(path: &Path, range: TpsRange) -> Self {
        Self {
            path: path.to_owned(),
            tail: CsvTail::new(path),
            pacer: Classic::new(range),
            last: None,
            sampled_at: None,
            present: false,
            wrong: None,
            complained: None,
        }
    }

    fn run(mut self, boards: &watch::Sender<Arc<Board>>, stop: &Stop) {
        while !stop.wait(POLL) {
            match self.look() {
                Ok(Some(board)) => {
                    boards.send_replace(Arc::new(board));
                }
                Ok(None) => {}
                Err(error) => self.complain(&format!("cannot be read: {error}")),
            }
            if let Some(wrong) = self.wrong.take() {
                self.complain(&format!("{wrong}; the line is left out"));
            }
        }
    }

    /// Takes in what has come; a board if that is anything.
    fn look(&mut self) -> Result<Option<Board>, std::io::Error> {
        let Poll { rows, error, present } = self.tail.poll()?;
        let first_look = !std::mem::replace(&mut self.present, present);
        self.wrong = error;
        let Some(newest) = rows.last().map(|row| row.sample.timestamp) else {
            return Ok(None);
        };
        for row in &rows {
            self.observe(row);
        }
        let age = if first_look { wall_age(newest) } else { Duration::ZERO };
        self.sampled_at = Instant::now().checked_sub(age);
        Ok(Some(self.board()))
    }

    fn observe(&mut self, row: &Row) {
        let before = self.last.replace(row.sample.timestamp);
        let elapsed = before
            .and_then(|before| row.sample.timestamp.checked_sub(before))
            .filter(|elapsed| !elapsed.is_zero())
            .map_or(USUAL_INTERVAL, |elapsed| elapsed.min(LONGEST_INTERVAL));
        self.pacer.observe(&Observation::from(&row.sample), elapsed);
    }

    fn board(&self) -> Board {
        let host = self.pacer.hint(&Scope::Host, Duration::ZERO);
        Board::new(host, Default::default(), Vec::new(), self.sampled_at.map(Into::into))
    }

    /// Logs `what` unless that was just done.
    fn complain(&mut self, what: &str) {
        let repeated = self
            .complained
            .as_ref()
            .is_some_and(|(before, at)| before == what && at.elapsed() < REPEAT);
        if !repeated {
            tracing::warn!("{}: {what}", self.path.display());
            self.complained = Some((what.to_owned(), Instant::now()));
        }
    }
}

/// How old a timestamp is by the wall clock; one from the future is new.
fn wall_age(timestamp: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(timestamp)
}
