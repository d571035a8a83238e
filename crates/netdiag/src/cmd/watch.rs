//! `netdiag watch`: the hints of a fleet, as they come over the message bus.
//!
//! On a terminal a table, one row per node (or peer, or stream), drawn a few times a second; elsewhere a line per hint, as text or as
//! JSON. Invariant: the terminal is as it was when we end, by a key, by a signal, or by a panic.

mod screen;
mod table;

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_hints::bus::{BusSettings, HintSubscriber, NodeName, Update};

use crate::args::bus::{BrokerArgs, BusScope};
use crate::args::values;
use crate::bus;
use crate::place::Places;
use crate::stop::{AskOnDrop, Stop};
use crate::terminal::say;
use table::Table;

/// Hints on their way from the bus to the screen: some frames' worth. Beyond, those of a scope replace each other before.
const ON_THE_WAY: usize = 1024;

/// How long is waited for the next hint before the stop is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// Watch the hints of many nodes on a terminal, as they come over the message bus
///
/// One row per node: state, tokens/s now and in the last minute, health, streams, and why. For nodes that run `netdiag up --bus URL` or
/// `serve --bus URL`. Keys: q or Esc ends, the arrow keys and PgUp/PgDn move. Where the output is no terminal, one line per
/// hint. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,

    /// Watch only this node.
    ///
    /// As it calls itself by its own --node. Default: all nodes.
    #[arg(long, value_name = "NAME", env = "NETDIAG_WATCH_NODE", value_parser = values::node, help_heading = "What to watch")]
    node: Option<NodeName>,

    /// Watch the hints of these: host, peer, stream (repeatable).
    ///
    /// Nodes push those of their own --bus-scope. Several values: repeat the flag, or separate with commas.
    #[arg(long, value_name = "SCOPE", env = "NETDIAG_WATCH_SCOPE", value_delimiter = ',', default_value = "host",
          value_parser = values::bus_scope(), help_heading = "What to watch")]
    scope: Vec<BusScope>,

    /// Print every hint as a line of JSON.
    ///
    /// As it came over the bus, and how long it still holds. Also on a terminal. Default: a table on a terminal, else lines of text.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_WATCH_JSON", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Output")]
    json: bool,

    /// End after this many seconds.
    ///
    /// From 0.01 to 3.2e9. A failure if the message bus was not reached until then. Default: run until a signal.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_DURATION", value_parser = values::duration, help_heading = "Output")]
    duration: Option<Duration>,
}

/// Runs until a signal, a key, or the end of the duration.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let bus = args.broker.settings_or_local("netdiag-watch", places)?;
    let stop = Stop::on_signals()?;
    let end = args.duration.map(|duration| Instant::now() + duration);
    let (hints, thread) = listen(bus.clone(), &args, &stop)?;
    let asked = stop.clone();
    let is_over =
        move || asked.wait(Duration::ZERO) || end.is_some_and(|end| Instant::now() >= end);
    let shown = if args.json || !io::stdout().is_terminal() {
        print_beside(hints, is_over, if args.json { json_line } else { text_line })
    } else {
        let scopes = args.scope.iter().any(|scope| *scope != BusScope::Host);
        screen::show(&hints, Table::new(bus.place(), scopes), is_over)
    };
    let is_late = end.is_some_and(|end| Instant::now() >= end);
    stop.ask();
    let listened = thread.join().map_err(|_| anyhow::anyhow!("the message bus's thread panicked"));
    shown?;
    // Ended by hand, the one at the terminal has seen it.
    if !listened? && is_late {
        let seconds = args.duration.unwrap_or_default().as_secs_f64();
        anyhow::bail!("could not listen to {} within {seconds} s", bus.place());
    }
    Ok(())
}

/// Prints on a thread of its own: whoever reads may have stopped reading, and we end all the same.
fn print_beside(
    hints: Receiver<Update>,
    is_over: impl Fn() -> bool + Clone + Send + 'static,
    line: fn(&Update) -> String,
) -> anyhow::Result<()> {
    let ending = is_over.clone();
    let (done, ended) = sync_channel(1);
    std::thread::Builder::new()
        .name("printer".to_owned())
        .spawn(move || drop(done.send(print(&hints, is_over, line))))
        .context("cannot start the thread that prints")?;
    loop {
        match ended.recv_timeout(PATIENCE) {
            Ok(printed) => return printed,
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the thread that prints panicked"),
            Err(RecvTimeoutError::Timeout) if ending() => {
                // It had its time to notice.
                return ended.recv_timeout(5 * PATIENCE).unwrap_or(Ok(()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Listens on a thread of its own, until the stop or until nobody takes what it hears. The thread ends with whether it came to listen.
fn listen(
    settings: BusSettings,
    args: &Args,
    stop: &Stop,
) -> anyhow::Result<(Receiver<Update>, JoinHandle<bool>)> {
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    let node = args.node.as_ref().map_or("*", NodeName::as_str);
    // One subscription has one filter; where several kinds are wanted, what comes is sifted.
    let filter = match args.scope[..] {
        [BusScope::Host] => format!("{node}.host"),
        [BusScope::Peer] => format!("{node}.peer.*"),
        [BusScope::Stream] => format!("{node}.stream.*"),
        _ => format!("{node}.>"),
    };
    let wanted = args.scope.clone();
    let (runtime, stop) = (bus::runtime()?, stop.clone());
    let thread = std::thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || {
            let _end = AskOnDrop(&stop);
            let mut listens = false;
            runtime.block_on(async {
                tokio::select! {
                    () = hear(&settings, &filter, &wanted, &sender, &mut listens) => {}
                    () = stop.asked() => {}
                }
            });
            // A name that takes its time to be resolved delays nobody.
            runtime.shutdown_background();
            listens
        })
        .context("cannot start the message bus's thread")?;
    Ok((receiver, thread))
}

async fn hear(
    settings: &BusSettings,
    filter: &str,
    wanted: &[BusScope],
    sender: &SyncSender<Update>,
    listens: &mut bool,
) {
    let mut subscriber = HintSubscriber::start(settings, filter).await;
    *listens = true;
    if !io::stdout().is_terminal() {
        say(&format!("netdiag: listening to {}", settings.place()));
    }
    loop {
        let mut update = subscriber.next().await;
        if !wanted.contains(&kind(&update)) {
            continue;
        }
        // Whoever takes them may be a slow terminal; meanwhile the subscriber keeps the newest.
        while let Err(error) = sender.try_send(update) {
            match error {
                TrySendError::Disconnected(_) => return,
                TrySendError::Full(again) => update = again,
            }
            tokio::time::sleep(PATIENCE / 10).await;
        }
    }
}

fn kind(update: &Update) -> BusScope {
    match update.hint.hint.scope.split(' ').next() {
        Some("peer") => BusScope::Peer,
        Some("stream") => BusScope::Stream,
        _ => BusScope::Host,
    }
}

fn print(
    hints: &Receiver<Update>,
    is_over: impl Fn() -> bool,
    line: fn(&Update) -> String,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    while !is_over() {
        let Ok(update) = hints.recv_timeout(PATIENCE) else { continue };
        let written = writeln!(out, "{}", line(&update)).and_then(|()| out.flush());
        match written {
            // Who reads it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write to the standard output")?,
        }
    }
    Ok(())
}

fn json_line(update: &Update) -> String {
    let mut value = serde_json::to_value(&update.hint).unwrap_or_default();
    value["holds_seconds"] = update.holds.as_secs_f64().into();
    value.to_string()
}

fn text_line(update: &Update) -> String {
    let (message, hint) = (&update.hint, &update.hint.hint);
    format!(
        "{:.3} {} {}: {:.1} tok/s {}{}, health {:.2}; {}",
        message.time,
        message.node,
        table::one_line(&hint.scope),
        hint.current_tps.get(),
        hint.state.as_str(),
        if hint.hold { " (hold)" } else { "" },
        hint.health,
        table::one_line(&hint.reason),
    )
}
