//! `cargo xtask clients`: real clients get the same answers through the gateway as without it.
//!
//! The `openai` package of Python, Vercel's AI SDK and curl ask the demo engine, and with `--llama` llama.cpp with a tiny model, first
//! at the engine and then through a gateway of each kind. What they make of the answers is compared byte for byte. The packages come
//! from PyPI and npm, so this is no part of `cargo xtask test`.
//!
//! Invariant: what was not compared is not told as equal, and every process ends with the check.

mod programs;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use self::programs::{Clients, Server};

/// How the check is asked to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Ask llama.cpp as well, which takes minutes to build
    #[arg(long)]
    llama: bool,
    /// For --llama: this model instead of a tiny one that is written for the check
    #[arg(long, value_name = "GGUF", requires = "llama")]
    model: Option<PathBuf>,
}

/// Tokens of a segment: answers have several.
const SEGMENT: &str = "16";

/// Ways through the gateway.
const GENERIC: Way = Way { name: "generic", arguments: &["--engine", "generic"] };
const SEGMENTS: Way =
    Way { name: "segment", arguments: &["--engine", "segment", "--segment-tokens", SEGMENT] };
const NETDIAG: Way = Way { name: "netdiag", arguments: &["--engine", "netdiag"] };
const UNPACED: Way = Way { name: "no-pacing", arguments: &["--no-pacing"] };

/// A gateway's arguments.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    arguments: &'static [&'static str],
}

/// An engine to ask, and how.
struct Engine {
    name: &'static str,
    server: Server,
    model: &'static str,
    /// Whether a call of a tool is asked for, or a tool is only there.
    tools: &'static str,
    ways: &'static [Way],
}

/// One answer, as a client understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    how: String,
    answer: String,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let clients = Clients::install()?;
    let mut engines = vec![Engine {
        name: "demo engine",
        server: Server::demo()?,
        model: "netdiag-demo",
        // It makes no calls.
        tools: "offered",
        ways: &[GENERIC, SEGMENTS, NETDIAG, UNPACED],
    }];
    if options.llama {
        engines.push(Engine {
            name: "llama.cpp",
            server: Server::llama(options.model.as_deref())?,
            model: "tiny",
            tools: "forced",
            // Its text is noise, which is not cut into the tokens again that it was made of.
            ways: &[GENERIC, NETDIAG, UNPACED],
        });
    } else {
        println!("skipped: llama.cpp (not asked for: --llama)");
    }
    let mut differences = 0;
    for engine in &engines {
        differences += check(engine, &clients)?;
    }
    if differences > 0 {
        bail!("{differences} answers differ");
    }
    Ok(())
}

/// How many answers of an engine differ with and without the gateway.
fn check(engine: &Engine, clients: &Clients) -> anyhow::Result<usize> {
    let mut differences = 0;
    let gateways: Vec<(Way, Server)> = engine
        .ways
        .iter()
        .map(|way| Ok((*way, Server::gateway(&engine.server, way.arguments)?)))
        .collect::<anyhow::Result<_>>()?;
    for (client, ask) in clients.all() {
        let asked = |server: &Server| {
            let told = ask(&server.url, engine.model, engine.tools);
            told.with_context(|| format!("{client} at {}", engine.name))
        };
        let direct = asked(&engine.server)?;
        ensure!(!direct.is_empty(), "{client} got no answers of {}", engine.name);
        // An engine that answers differently each time says nothing about the gateway.
        differences +=
            compare(client, engine.name, "itself again", &direct, &asked(&engine.server)?);
        for (way, gateway) in &gateways {
            let name = format!("the gateway ({})", way.name);
            differences += compare(client, engine.name, &name, &direct, &asked(gateway)?);
        }
    }
    Ok(differences)
}

/// Prints a line for each answer that differs, or one for all.
fn compare(client: &str, engine: &str, way: &str, direct: &[Told], through: &[Told]) -> usize {
    let differing = differing(direct, through);
    if differing.is_empty() {
        let bytes: usize = through.iter().map(|told| told.answer.len()).sum();
        let hows: Vec<&str> = through.iter().map(|told| &*told.how).collect();
        println!("ok {client}, {engine}, {way}: {} ({bytes} bytes)", hows.join("; "));
    }
    for (how, expected, found) in &differing {
        println!(
            "DIFFERS {client}, {engine}, {way}: {how}\n  directly {expected}\n  through  {found}"
        );
    }
    differing.len()
}

/// How, directly, and through the gateway.
fn differing(direct: &[Told], through: &[Told]) -> Vec<(String, String, String)> {
    let nothing = Told { how: String::new(), answer: "nothing".to_owned() };
    (0..direct.len().max(through.len()))
        .filter_map(|at| {
            let [direct, through] =
                [direct, through].map(|told| told.get(at).unwrap_or(&nothing).clone());
            let how = if direct.how.is_empty() { &through.how } else { &direct.how };
            (direct != through).then(|| (how.clone(), direct.answer, through.answer))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_that_is_not_the_same_is_found() {
        let told = |answers: &[&str]| -> Vec<Told> {
            let told = |(at, answer): (usize, &&str)| Told {
                how: format!("way {at}"),
                answer: (*answer).to_owned(),
            };
            answers.iter().enumerate().map(told).collect()
        };
        let check = |through: &[&str], expected: &[&str]| {
            let found = differing(&told(&["a", "b"]), &told(through));
            let found: Vec<&str> = found.iter().map(|(how, ..)| &**how).collect();
            assert_eq!(found, expected, "{through:?}");
        };
        check(&["a", "b"], &[]);
        check(&["a", "B"], &["way 1"]);
        check(&["a"], &["way 1"]);
        check(&["a", "b", "c"], &["way 2"]);
        check(&[], &["way 0", "way 1"]);
    }
}
