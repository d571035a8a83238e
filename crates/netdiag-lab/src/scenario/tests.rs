//! Scenarios as data: what a file says, what is wrong with it, the shipped ones, and any bytes at all.

use std::io;

use proptest::prelude::*;

use super::*;
use crate::queue::{Discipline, Queue, QueueLength};
use crate::spec::LinkSpec;
use crate::trace::Trace;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Reads a scenario beside which there is one trace.
fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(text.as_bytes(), "s.toml", &mut |name| match name {
        "good.down" => Ok(b"1\n5\n10\n".to_vec()),
        "bad.down" => Ok(b"1\nx\n".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

/// The links of the only group.
fn links(text: &str) -> Vec<Duplex> {
    let scenario = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(scenario.groups().len(), 1);
    scenario.schedules()[0].steps().iter().map(|(_, link)| link.clone()).collect()
}

/// A link, downwards, of which the phase says this.
fn phase(kind: &str, rest: &str) -> LinkSpec {
    let link = "delay = \"20ms\"\nrate = \"10mbit\"\nloss = \"1%\"\n";
    let text = format!("[link]\n{link}[[phase]]\nkind = \"{kind}\"\nduration = \"5s\"\n{rest}");
    links(&text).remove(0).down
}

#[test]
fn each_kind_does_what_the_table_says() {
    let base = || {
        let link = LinkSpec::delayed(ms(20)).expect("possible");
        link.with_rate(10_000_000).expect("possible").with_loss(0.01).expect("possible")
    };
    let queue = |length| Queue::try_new(Discipline::DropTail, length).expect("possible");
    assert_eq!(phase("calm", ""), base());
    let jittery = base().with_delay(ms(60)).expect("possible").with_jitter(ms(40));
    assert_eq!(phase("jitter", ""), jittery.expect("possible"));
    assert_eq!(phase("lossy", ""), base().with_burst_loss(0.05, 3.0).expect("possible"));
    assert_eq!(phase("blackout", ""), base().blackout());
    let bloated = base().with_rate(1_000_000).expect("possible");
    assert_eq!(
        phase("bufferbloat", ""),
        bloated.with_queue(queue(QueueLength::Time(Duration::from_secs(2))))
    );
    let trace = Trace::parse(b"1\n5\n10\n").expect("a trace");
    assert_eq!(
        phase("trace", "trace = \"good.down\""),
        base().with_trace(trace).with_queue(queue(QueueLength::Time(Duration::from_secs(2))))
    );
}

#[test]
fn a_phase_may_say_otherwise_also_for_one_direction() {
    let jittery = phase("jitter", "jitter = \"5ms\"");
    assert_eq!((jittery.delay(), jittery.jitter()), (ms(25), ms(5)));
    let jittery = phase("jitter", "jitter = \"5ms\"\ndelay = \"7ms\"");
    assert_eq!((jittery.delay(), jittery.jitter()), (ms(7), ms(5)));
    let lossy = phase("lossy", "loss = 0.2\nburst = 1.5");
    assert!((lossy.loss() - 0.2).abs() < 1e-12 && (lossy.mean_burst() - 1.5).abs() < 1e-9);
    let check = |text: &str, expected| {
        let queue = phase("calm", &format!("queue = \"{text}\"")).queue();
        assert_eq!((queue.discipline(), queue.length()), expected, "{text}");
    };
    check("200ms", (Discipline::DropTail, QueueLength::Time(ms(200))));
    check("droptail 64kB", (Discipline::DropTail, QueueLength::Bytes(64_000)));
    check("drophead 50 packets", (Discipline::DropHead, QueueLength::Packets(50)));
    check("codel", (Discipline::CoDel, QueueLength::Packets(1000)));
    check("codel 1s", (Discipline::CoDel, QueueLength::Time(ms(1000))));

    let text = "[link]\ndelay = \"10ms\"\nup.rate = \"1mbit\"\n[[phase]]\nkind = \"lossy\"\n\
                duration = \"5s\"\ndown.loss = \"0%\"\n[phase.up]\ndelay = \"30ms\"\n";
    let link = links(text).remove(0);
    assert_eq!((link.up.delay(), link.down.delay()), (ms(30), ms(10)));
    assert_eq!((link.up.rate(), link.down.rate()), (Some(1e6), None));
    assert_eq!((link.up.loss() > 0.0, link.down.loss()), (true, 0.0));
}

#[test]
fn groups_take_part_or_stay_calm_behind_links_of_their_own() {
    let text = "[link]\ndelay = \"10ms\"\n\
                [[phase]]\nkind = \"calm\"\nduration = \"5s\"\n\
                [[phase]]\nname = \"tunnel\"\nkind = \"blackout\"\nduration = \"5s\"\n\
                [[group]]\nname = \"train\"\ncount = 3\n\
                [[group]]\nname = \"home\"\nshare = \"50%\"\nphases = []\nlink.delay = \"2ms\"\n";
    let scenario = parse(text).expect("a scenario");
    let [train, home] = scenario.groups() else { panic!("two groups") };
    assert_eq!((train.name(), train.portion()), ("train", Portion::Count(3)));
    assert_eq!((home.name(), home.portion()), ("home", Portion::Share(0.5)));
    let schedules = scenario.schedules();
    let at = |group: usize| schedules[group].at(Duration::from_secs(7)).down.clone();
    assert!(at(0).is_blackout());
    assert_eq!(at(1), LinkSpec::delayed(ms(2)).expect("possible"));
}

#[test]
fn clients_are_divided_by_count_and_share() {
    let check = |groups: &str, clients, expected: Result<&[usize], &str>| {
        let mut text = "[[phase]]\nkind = \"calm\"\nduration = \"5s\"\n".to_owned();
        for group in groups.split(' ') {
            text += &format!("[[group]]\nname = \"g\"\n{}\n", group.replace('=', " = "));
        }
        let divided = parse(&text).expect("a scenario").divide(clients);
        match (divided, expected) {
            (Ok(numbers), Ok(expected)) => assert_eq!(numbers, expected, "{groups}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().starts_with(expected), "{error}");
            }
            (divided, _) => panic!("{divided:?} for {groups}"),
        }
    };
    check("share=0.5 share=0.5", 5, Ok(&[3, 2]));
    check("share=0.67 share=0.33", 50, Ok(&[34, 16]));
    check("share=0.1 share=0.1", 10, Ok(&[5, 5]));
    check("count=2 share=0.3 share=0.6", 11, Ok(&[2, 3, 6]));
    check("count=2 share=0.3", 2, Ok(&[2, 0]));
    check("count=2 count=3", 5, Ok(&[2, 3]));
    check("count=2 count=3", 4, Err("4 clients are fewer than the 5"));
    check("count=2 count=3", 6, Err("6 clients are more than the 5"));
}

#[test]
fn a_scenario_fits_the_time_there_is() {
    let text = "[[phase]]\nkind = \"calm\"\nduration = \"20s\"\n\
                [[phase]]\nkind = \"blackout\"\nduration = \"10s\"\n";
    let scenario = parse(text).expect("a scenario");
    let check = |total: u64, expected: &[u64]| {
        let fitted = scenario.fit(ms(total)).expect("fits");
        assert_eq!(fitted.duration(), ms(total));
        let phases: Vec<u64> =
            fitted.phases().iter().map(|phase| phase.duration().as_millis() as u64).collect();
        assert_eq!(phases, expected);
        let steps = fitted.schedules()[0].steps().len();
        assert_eq!(steps, expected.len());
    };
    check(30_000, &[20_000, 10_000]);
    check(15_000, &[10_000, 5_000]);
    check(36_000, &[24_000, 12_000]);
    check(60_000, &[20_000, 10_000, 20_000, 10_000]);
    check(1500, &[1000, 500]);
    let error = scenario.fit(ms(1400)).expect_err("too short").to_string();
    assert_eq!(
        error,
        "s.toml cannot take 1.4s: give 1.5s to 86400s, so that every phase has 500ms"
    );
    assert!(scenario.fit(Duration::MAX).is_err());
}

#[test]
fn a_trace_is_played_as_if_it_had_begun_with_the_scenario() {
    let text = "[link]\ntrace = \"good.down\"\n\
                [[phase]]\nkind = \"calm\"\nduration = \"503ms\"\n\
                [[phase]]\nkind = \"lossy\"\nduration = \"5s\"\n";
    let schedule = &parse(text).expect("a scenario").schedules()[0];
    let trace = Trace::parse(b"1\n5\n10\n").expect("a trace");
    let offset = |trace: Trace| LinkSpec::default().with_trace(trace);
    assert_eq!(schedule.steps()[0].1.up, offset(trace.clone()));
    let lossy = offset(trace.starting_at(ms(3))).with_burst_loss(0.05, 3.0);
    assert_eq!(schedule.steps()[1].1.up, lossy.expect("possible"));
}

#[test]
fn a_made_up_trace_needs_no_file() {
    let text = "[[phase]]\nkind = \"trace\"\nduration = \"5s\"\n\
                trace = { model = \"cellular\", mean = \"6mbit\", seed = 3 }\n";
    let link = links(text).remove(0);
    assert!(link.down.rate().is_some_and(|rate| (rate / 6e6 - 1.0).abs() < 0.02));
    assert_eq!(link.up, link.down);
}

#[test]
fn the_shipped_scenarios_are_scenarios_of_a_minute() {
    for name in Scenario::builtin_names() {
        let scenario = Scenario::builtin(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.name(), name);
        assert_eq!(scenario.duration(), Duration::from_secs(60), "{name}");
        assert!(!scenario.description().is_empty());
        assert!(scenario.description().chars().count() < 100, "{name}: a line");
        assert_eq!(scenario.divide(50).expect("divides").iter().sum::<usize>(), 50);
        assert_eq!(Scenario::open(name).expect("found"), scenario);
        assert!(Scenario::builtin_text(name).is_some_and(|text| text.starts_with("# ")));
        for schedule in scenario.schedules() {
            let is_bad = |link: &LinkSpec| {
                link.is_blackout() || link.loss() > 0.0 || !link.jitter().is_zero()
            };
            let bad = schedule.steps().iter().any(|(_, link)| is_bad(&link.down));
            assert!(!(name == "clean-long-haul" && bad));
        }
    }
}

#[test]
fn what_is_neither_shipped_nor_a_file_is_named() {
    let error = Scenario::open("flaky-wify").expect_err("unknown").to_string();
    assert!(
        error.starts_with(
            "no scenario `flaky-wify`: give the path of a file, or one of flaky-wifi, "
        )
    );
    let error = Scenario::open("nowhere/x.toml").expect_err("no file").to_string();
    assert!(error.starts_with("nowhere/x.toml: cannot be read: No such file"), "{error}");
    for other in ["/dev/zero", "/"] {
        let error = Scenario::open(other).expect_err("no file").to_string();
        assert!(
            error.ends_with("cannot be read: it is no regular file; give the path of one"),
            "{error}"
        );
    }
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    for name in ["pipe.toml", "pipe.down"] {
        let made = std::process::Command::new("mkfifo").arg(path(name)).status();
        assert!(made.expect("coreutils").success());
    }
    let text = "[link]\ntrace = \"pipe.down\"\n[[phase]]\nkind = \"calm\"\nduration = \"5s\"\n";
    std::fs::write(path("mine.toml"), text).expect("written");
    let (pipe, mine) = (path("pipe.toml"), path("mine.toml"));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let errors =
            [pipe, mine].map(|path| Scenario::open(&path).expect_err("a pipe").to_string());
        let _ = tell.send(errors);
    });
    let errors = told.recv_timeout(Duration::from_secs(20)).expect("not waited for");
    for (error, place) in errors.iter().zip(["pipe.toml: ", "mine.toml:2: trace = \"pipe.down\": "])
    {
        assert!(error.contains(place) && error.contains("no regular file"), "{error}");
    }
}

#[test]
fn a_file_and_its_traces_are_read_from_their_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml");
    let text = "[[phase]]\nkind = \"trace\"\nduration = \"5s\"\ntrace = \"own.down\"\n";
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("UTF-8");
    let error = Scenario::open(path).expect_err("no trace").to_string();
    let expected = format!("{path}:4: trace = \"own.down\": cannot be read: No such file");
    assert!(error.starts_with(&expected), "{error}");
    std::fs::write(folder.path().join("own.down"), "1\n").expect("written");
    let scenario = Scenario::open(path).expect("a scenario");
    assert_eq!(scenario.name(), "mine");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_the_remedy() {
    const PHASE: &str = "[[phase]]\nkind = \"calm\"\nduration = \"5s\"\n";
    let check = |text: &str, expected: &str| {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("s.toml:{expected}")), "{error}\nexpected {expected}");
    };
    check("", "1: no phases: write at least one [[phase]] with kind and duration");
    check("phase = 3", "1: phase = 3: must be tables: write [[phase]]");
    check("a = = b", "1: not valid TOML: ");
    check(
        &format!("{PHASE}dely = \"5ms\""),
        "4: unknown key `dely` in [[phase]]; did you mean `delay`?",
    );
    check("[lnk]", "1: unknown key `lnk` in the file; did you mean `link`?");
    check("[link.up]\nname = \"x\"", "2: unknown key `name` in up; known are delay, ");
    check("[[phase]]\nduration = \"5s\"", "1: [[phase]] needs kind: one of calm, jitter, ");
    check("[[phase]]\nkind = \"calm\"", "1: [[phase]] needs duration: how long it takes, such as");
    check(
        "[[phase]]\nkind = \"jiter\"\nduration = \"5s\"",
        "2: kind = \"jiter\": unknown kind; did you mean `jitter`?",
    );
    let timed = |text| format!("[[phase]]\nkind = \"calm\"\nduration = {text}");
    check(&timed("5"), "3: duration = 5: must be a time with its unit (us, ms, s, ");
    check(&timed("\"5 hours\""), "3: duration = \"5 hours\": must be a time with its unit");
    check(&timed("\"1ms\""), "3: duration = \"1ms\": must be from 500ms to 86400s");
    let with = |text| format!("{PHASE}{text}");
    check(&with("delay = \"2min\""), "4: phase calm: delay 120s is above 60s: for");
    check(&with("jitter = \"9ms\""), "4: phase calm: jitter 9ms is above the delay 0ns it varies");
    check(&with("loss = 5"), "4: loss = 5: must be a share from 0 to 1 or in percent, such as 5%");
    check(&with("loss = \"120%\""), "4: loss = \"120%\": must be a share");
    check(&with("burst = 4"), "4: phase calm: burst = 4: says how losses come together; add loss");
    check(
        &with("loss = \"5%\"\nburst = 0.5"),
        "5: phase calm: burst of 0.5 packets at loss 0.05: bursts have 1 packet or more",
    );
    check(&with("burst = \"x\""), "4: burst = \"x\": must be a number of packets");
    check(&with("rate = \"10mbps\""), "4: rate = \"10mbps\": must be a rate with its unit (bit, ");
    check(&with("rate = \"10bit\""), "4: phase calm: rate 10 bit/s is below 1000 bit/s");
    check(&with("queue = \"short\""), "4: queue = \"short\": must be a length such as 200ms, ");
    check(&with("queue = \"0 packets\""), "4: queue = \"0 packets\": queue of 0 packets: give");
    check(&with("queue = \"\""), "4: queue = \"\": must be a length");
    check(&with("name = 3"), "4: name = 3: must be a text in quotes");
    check(&with("up = 3"), "4: up = 3: must be a table: write up");
    check(
        &with("trace = \"none.down\""),
        "4: trace = \"none.down\": cannot be read: entity not found (a trace's path is relative",
    );
    check(
        &with("trace = \"bad.down\""),
        "4: trace = \"bad.down\": line 2: `x` is no time: write whole milliseconds",
    );
    check(
        &with("rate = \"1mbit\"\ntrace = \"good.down\""),
        "5: trace = \"good.down\": the link has a rate as well: give one of the two",
    );
    check(
        &with("trace = { model = \"wifi\", mean = \"1mbit\" }"),
        "4: model = \"wifi\": unknown model; known is \"cellular\"",
    );
    check(
        &with("trace = { model = \"cellular\", mean = \"1bit\" }"),
        "4: mean = \"1bit\": mean 1 bit/s of a cellular link: give 24000 to",
    );
    check(
        &with("trace = { model = \"cellular\" }"),
        "4: a made-up trace needs mean: what it carries, such as",
    );
    check(
        "[[phase]]\nkind = \"trace\"\nduration = \"5s\"\ndown.trace = \"good.down\"",
        "1: phase trace has no trace in one direction: add trace = \"FILE\", or",
    );
    check("seed = -1", "1: seed = -1: must be a whole number from 0 on");
    check("seed = 1.5", "1: seed = 1.5: must be a whole number from 0 on");
    let group = |text| format!("{PHASE}[[group]]\n{text}");
    check(&group(""), "4: [[group]] needs name: what to call these clients");
    check(&group("name = \"g\""), "4: group g needs either a share above 0 or a count");
    check(&group("name = \"g\"\nshare = 0.0"), "4: group g needs either a share above 0");
    check(&group("name = \"g\"\nshare = 1\ncount = 1"), "4: group g needs either a share");
    check(&group("name = \"g\"\ncount = 0"), "6: count = 0: must be a whole number from 1 on");
    check(
        &group("name = \"g\"\nshare = 1\nphases = [\"clam\"]"),
        "7: phases = [\"clam\"]: no phase is called clam; did you mean `calm`?",
    );
    check(&group("name = \"g\"\nshare = 1\nphases = \"calm\""), "7: phases = \"calm\": must be a");
    check(
        &group("name = \"g\"\nshare = 1\nlink.jitter = \"1ms\""),
        "7: phase calm: jitter 1ms is above the delay 0ns it varies",
    );
    check(
        &group("name = \"a\"\nshare = \"67%\"\n[[group]]\nname = \"b\"\nshare = \"67%\""),
        "7: with group b the shares add up to 134 %: make them 100 % at most",
    );
    let blackout = |text| format!("[[phase]]\nkind = \"blackout\"\nduration = \"5s\"\n{text}");
    check(
        &blackout("loss = \"5%\""),
        "4: loss in a blackout, in which nothing comes through: leave",
    );
    check(&blackout("down.burst = 2"), "4: burst in a blackout, in which nothing comes through");
    check(
        &format!("description = \"red \\u001b[31m\"\n{PHASE}"),
        "1: description = \"red \\u001b[31m\": has the control character U+001B; leave it out",
    );
    check(&with("name = \"a\\nb\""), "4: name = \"a\\nb\": has the control character U+000A");
    // As it stands in the file, and as it must not reach a terminal.
    let csi = '\u{9b}';
    check(&group(&format!("name = \"{csi}2J\"")), "5: name = \"\u{fffd}2J\": has the control");
    check("\"\\u001b[2J\" = 1", "1: unknown key `\u{fffd}[2J` in the file");
    check(&PHASE.repeat(1001), "3001: more than 1000 phases: let the scenario be repeated");
    check(
        &(PHASE.to_owned() + &"[[group]]\nname = \"g\"\nshare = 1\n".repeat(33)),
        "100: more than 32 groups: join those that are alike",
    );
    check(
        &with("trace = \"good.down\"\n").repeat(33),
        "132: trace = \"good.down\": more than 32 traces: put one that phases share into [link]",
    );
    let error = Scenario::parse(b"a = 1\n\xff", "s.toml", &mut |_| unreachable!());
    let error = error.expect_err("no text").to_string();
    assert_eq!(error, "s.toml:2: not UTF-8 text; save the file as UTF-8");
}

proptest! {
    #[test]
    fn any_bytes_are_a_scenario_or_refused_with_a_line(
        bytes in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let read = Scenario::parse(&bytes, "x", &mut |_| Err(io::ErrorKind::NotFound.into()));
        if let Err(error) = read {
            prop_assert!(error.to_string().starts_with("x:"), "{}", error);
        }
    }

    /// Deeper than arbitrary bytes reach: a good file with a stretch of it replaced by one of another's, or by junk.
    #[test]
    fn damaged_scenarios_are_scenarios_or_refused(
        which in 0usize..4,
        other in 0usize..4,
        at in any::<prop::sample::Index>(),
        cut in 0usize..60,
        from in any::<prop::sample::Index>(),
        taken in 0usize..60,
        junk in "\\PC{0,8}",
    ) {
        let text = |index: usize| {
            let name = Scenario::builtin_names().nth(index).expect("one of four");
            Scenario::builtin_text(name).expect("shipped").as_bytes()
        };
        let (good, other) = (text(which), text(other));
        let at = at.index(good.len());
        let from = from.index(other.len());
        let taken = &other[from..(from + taken).min(other.len())];
        let rest = &good[(at + cut).min(good.len())..];
        let damaged = [&good[..at], taken, junk.as_bytes(), rest].concat();
        match Scenario::parse(&damaged, "x", &mut |_| Ok(b"1\n".to_vec())) {
            Err(error) => prop_assert!(error.to_string().starts_with("x:"), "{}", error),
            Ok(scenario) => {
                prop_assert_eq!(scenario.schedules().len(), scenario.groups().len());
                if let Ok(fitted) = scenario.fit(Duration::from_secs(60)) {
                    prop_assert_eq!(fitted.duration(), Duration::from_secs(60));
                }
            }
        }
    }

    #[test]
    fn a_fitted_scenario_takes_the_time_and_keeps_its_phases(
        seconds in proptest::collection::vec(1u64..100, 1..6), total in 1u64..2000
    ) {
        let text: String = seconds
            .iter()
            .map(|n| format!("[[phase]]\nkind = \"lossy\"\nduration = \"{n}s\"\n"))
            .collect();
        let scenario = parse(&text).expect("a scenario");
        match scenario.fit(Duration::from_secs(total)) {
            Err(error) => {
                let shortest = *seconds.iter().min().expect("one") as f64;
                let natural = seconds.iter().sum::<u64>() as f64;
                prop_assert!((total as f64) < 0.5 * natural / shortest + 1e-6, "{}", error);
            }
            Ok(fitted) => {
                prop_assert_eq!(fitted.duration(), Duration::from_secs(total));
                prop_assert_eq!(fitted.phases().len() % seconds.len(), 0);
                let shortest = fitted.phases().iter().map(|phase| phase.duration()).min();
                prop_assert!(shortest >= Some(ms(499)), "{:?}", shortest);
            }
        }
    }
}
