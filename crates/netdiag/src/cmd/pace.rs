//! `netdiag pace`: prints a text as fast as the network would carry it, to see and to feel what a hint means.
//!
//! A thread cuts the text into tokens; this one prints them as a token bucket allows, and looks at the CSV file several
//! times a second for the rate. Invariant: nothing here waits for long without hearing the wish to end, not even for a
//! reader that has stopped reading.

mod footer;
mod tokens;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use netdiag_pacer::{Hint, State, TokenBucket, TpsRange};
use netdiag_telemetry::Scope;

use crate::args::{ModelArgs, RateArgs, StaleArgs};
use crate::csv_file::{CsvPacer, POLL, STALE_AFTER};
use crate::models::Models;
use crate::output::{Output, Written};
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;
use footer::Footer;
use tokens::Mode;

/// Tokens that may come at once. A timer is late by up to a millisecond or two; with room for a second token, the time
/// it was late counts for the next one, and the mean rate is what it should be.
const BURST: u32 = 2;

/// Without a terminal, the rate is told when it has changed by this share (or telemetry came or went): often enough to see it fall and
/// recover, seldom enough for a log.
const NOTICEABLE: f64 = 0.1;

/// Print a text at the rate that the network carries
///
/// Prints TEXT to stdout, word by word or character by character, at the rate recommended for the telemetry in a CSV
/// file that is followed meanwhile. The rate is shown on stderr: in the last line of a terminal, elsewhere as a line
/// whenever it has changed by a tenth. A hint to hold stops the text until the next one. SIGINT and SIGTERM end it.
#[derive(Debug, clap::Args)]
#[command(mut_arg("max_tps", |arg| arg.default_value("60")))]
pub(crate) struct Args {
    /// The text to print, or `-` to read it from stdin as it comes.
    text: String,

    /// Print word by word or char by char: word or char.
    ///
    /// A word takes the white space after it along; where a script has no spaces between words (Chinese, Japanese),
    /// each character counts as one. A char is what a reader sees as one, accents and joined emoji included.
    #[arg(long, value_name = "MODE", env = "NETDIAG_MODE", default_value = "word", hide_possible_values = true,
          value_parser = tokens::mode(), help_heading = "Output")]
    mode: Mode,

    /// Follow the telemetry in this file.
    ///
    /// What `netdiag agent` writes, or any file that `netdiag serve` reads. While it is absent, the rate is the one for
    /// stale telemetry. Default: no file, and the maximal rate.
    #[arg(long, value_name = "FILE", env = "NETDIAG_CSV", help_heading = "Input")]
    csv: Option<PathBuf>,

    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    stale: StaleArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs until the text ends, nobody reads it any more, or a signal comes.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let range = args.rates.validate(places)?;
    let models = Models::new(args.model.load(places)?);
    let stop = Stop::on_signals()?;
    let mut pace = Pace::start(&args, range, models)?;
    let tokens = if args.text == "-" {
        tokens::read(io::stdin(), args.mode)
    } else {
        tokens::read(io::Cursor::new(args.text), args.mode)
    };
    let mut output = Output::default();
    let printed = print(&tokens?, &mut pace, &mut output, &stop);
    // Also after a failure, so that its message starts on a line of its own.
    output.end_line();
    printed
}

fn print(
    tokens: &Receiver<anyhow::Result<String>>,
    pace: &mut Pace,
    output: &mut Output,
    stop: &Stop,
) -> anyhow::Result<()> {
    while !stop.wait(Duration::ZERO) {
        let token = match tokens.recv_timeout(POLL) {
            Ok(token) => token?,
            Err(RecvTimeoutError::Timeout) => {
                pace.keep_up();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        while let Err(wait) = pace.turn() {
            if stop.wait(wait) {
                return Ok(());
            }
        }
        if output.write(&token, stop)? != Written::Whole {
            break;
        }
    }
    Ok(())
}

/// When the next token may be printed.
struct Pace {
    source: Option<CsvPacer>,
    stale: StaleArgs,
    started: Instant,
    looked: Instant,
    hint: Hint,
    bucket: TokenBucket,
    display: Display,
}

impl Pace {
    fn start(args: &Args, range: TpsRange, models: Models) -> anyhow::Result<Self> {
        let (source, present) = match &args.csv {
            Some(path) => CsvPacer::start(path, range, models, |_, _| ())
                .map(|(pacer, there)| (Some(pacer), there))?,
            None => (None, false),
        };
        let now = Instant::now();
        let mut pace = Self {
            source,
            stale: args.stale,
            started: now,
            looked: now,
            hint: Hint::unknown(range, &Scope::Host, "no --csv to follow"),
            bucket: TokenBucket::new(range.max(), BURST, Duration::ZERO),
            display: Display::default(),
        };
        pace.refresh();
        let rate = rate_text(&pace.hint);
        match &args.csv {
            None => say(&format!("netdiag: {rate}: no --csv to follow")),
            Some(path) if !present => {
                say(&format!("netdiag: {rate}: {} is not there yet", path.display()));
            }
            Some(_) => {}
        }
        // What was just said need not be said again.
        pace.display = Display::new(if present { None } else { Some(pace.hint.clone()) });
        pace.display.show(&pace.hint);
        Ok(pace)
    }

    /// Takes a token, or says how long to wait before asking again.
    fn turn(&mut self) -> Result<(), Duration> {
        self.keep_up();
        if self.hint.hold {
            return Err(POLL);
        }
        self.bucket.take(self.started.elapsed(), 1).map_err(|wait| wait.min(POLL))
    }

    /// Looks at the file if it is time to.
    fn keep_up(&mut self) {
        if self.looked.elapsed() < POLL {
            return;
        }
        self.looked = Instant::now();
        if let Some(source) = &mut self.source {
            source.keep_up(|_, _| ());
        }
        self.refresh();
        self.display.show(&self.hint);
    }

    fn refresh(&mut self) {
        if let Some(source) = &self.source {
            let age = source.sampled_at().map(|at| at.elapsed());
            let stale_after = self.stale.stale_after.unwrap_or(STALE_AFTER);
            self.hint = source.hint().aged(age, stale_after, self.stale.when_stale);
        }
        self.bucket.set_rate(self.started.elapsed(), self.hint.current_tps);
    }
}

/// The rate, for a person.
#[derive(Default)]
struct Display {
    footer: Option<Footer>,
    told: Option<Hint>,
}

impl Display {
    fn new(told: Option<Hint>) -> Self {
        Self { footer: Footer::start(), told }
    }

    fn show(&mut self, hint: &Hint) {
        let (state, reason) = (hint.state.as_str(), &hint.reason);
        if let Some(footer) = &mut self.footer {
            footer.set(&format!("{} {state} │ {reason}", rate_text(hint)));
            return;
        }
        let news = self.told.as_ref().is_none_or(|told| {
            let (before, rate) = (told.current_tps.get(), hint.current_tps.get());
            let stale = (told.state == State::Stale) != (hint.state == State::Stale);
            stale || told.hold != hint.hold || (rate - before).abs() > NOTICEABLE * before
        });
        if news {
            say(&format!("netdiag: {} ({state}: {reason})", rate_text(hint)));
            self.told = Some(hint.clone());
        }
    }
}

fn rate_text(hint: &Hint) -> String {
    if hint.hold { "holding".to_owned() } else { format!("{:.1} tok/s", hint.current_tps.get()) }
}
