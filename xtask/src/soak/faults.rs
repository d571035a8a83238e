//! The faults, each from its beginning to its end.
//!
//! Invariant: what a fault did is undone when it is over, and the time at which it was is what recovery counts from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use super::broken;
use super::load;
use super::parts::Id;
use super::rows::step_at;
use super::schedule::Fault;
use super::signs::is_leader;
use super::system::System;

/// How long the broker is away, and the engine: longer than it takes to be noticed, which is the gateway's two seconds.
const AWAY: Duration = Duration::from_secs(4);

/// How long an interface is down: some retransmissions.
const DOWN: Duration = Duration::from_secs(3);

/// How far the clock is stepped, seconds: longer than from one such fault to the next. And for how long each time: it is read anew after a
/// second.
const STEP_SECONDS: i64 = 3600;
const STEPPED: Duration = Duration::from_millis(2500);

/// How long there is no room at most until it is noticed: the rest of a page takes 27 rows, which is 5.4 s where no row is late.
const LONGEST_FULL: Duration = Duration::from_secs(15);

/// And how long rows wait from then on.
const WAITING: Duration = Duration::from_millis(1500);

/// As the kernel puts it.
const NO_ROOM: &str = "No space left on device";

/// How long clients are broken.
const BROKEN: Duration = Duration::from_secs(6);

/// Until a service manager starts again what has died.
const RESTART: Duration = Duration::from_millis(300);

/// Lets it happen; when it was over.
pub(super) fn inject(fault: Fault, seed: u64, system: &mut System) -> anyhow::Result<Instant> {
    match fault {
        Fault::NatsKilled => dead_for(Id::Nats, AWAY, system),
        Fault::EngineKilled => dead_for(Id::Engine, AWAY, system),
        Fault::Killed(id) => dead_for(id, RESTART, system),
        Fault::LeaderKilled | Fault::FollowerKilled => {
            let leads = system.lab.on_server(|| is_leader(9003))??;
            let first = leads == (fault == Fault::LeaderKilled);
            let died = Instant::now();
            dead_for(if first { Id::FleetA } else { Id::FleetB }, RESTART, system)?;
            // The other one is there to take over at once.
            Ok(died)
        }
        Fault::InterfaceDown => interface_down(system),
        Fault::ClockStepped => clock_stepped(system),
        Fault::DiskFull => disk_full(system),
        Fault::Flows => {
            let thread = system.lab.on_server(|| std::thread::spawn(load::flows))?;
            let failed = finished(thread, system)??;
            if failed > 0 {
                system.incidents.push(format!("{failed} of 10,000 connections were not served"));
            }
            Ok(Instant::now())
        }
        Fault::BrokenClients => {
            let end = Instant::now() + BROKEN;
            let is_crowd = system.warm_round.is_none();
            let clients = move || broken::clients(seed, is_crowd, end);
            let thread = system.lab.on_server(|| std::thread::spawn(clients))?;
            for port in finished(thread, system)? {
                system.incidents.push(format!("no broken client was let in at port {port}"));
            }
            Ok(Instant::now())
        }
    }
}

fn dead_for(id: Id, time: Duration, system: &mut System) -> anyhow::Result<Instant> {
    system.kill(id)?;
    system.pump(time)?;
    system.start_part(id)?;
    Ok(Instant::now())
}

/// The server's end of every link.
fn interface_down(system: &mut System) -> anyhow::Result<Instant> {
    let set = |system: &System, state: &str| -> anyhow::Result<()> {
        for number in 0..system.lab.links().len() {
            let status = Command::new("nsenter")
                .arg(format!("--net={}", system.places.netns.display()))
                .args(["ip", "link", "set", "dev", &format!("netdiag{number}"), state])
                .stdin(Stdio::null())
                .status()?;
            ensure!(status.success(), "cannot set netdiag{number} {state}");
        }
        Ok(())
    };
    set(system, "down")?;
    let pumped = system.pump(DOWN);
    set(system, "up")?;
    pumped?;
    Ok(Instant::now())
}

fn clock_stepped(system: &mut System) -> anyhow::Result<Instant> {
    // Each time back to before all that was measured so far. What is before a step back stays in a dashboard's history, which is there to
    // grow, and could not be told from what must not.
    system.steps_back += 1;
    for seconds in [STEP_SECONDS, -STEP_SECONDS * system.steps_back, 0] {
        system.set_clock(seconds)?;
        system.excuses.push(step_at(Instant::now()));
        if seconds != 0 {
            system.pump(STEPPED)?;
        }
    }
    Ok(Instant::now())
}

fn disk_full(system: &mut System) -> anyhow::Result<Instant> {
    let filler = system.places.disk().join("filler");
    let mut file = File::create(&filler)?;
    // Page by page, so that the last one is taken, too.
    loop {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    let before = system.complaints(NO_ROOM);
    let began = Instant::now();
    // Until both have noticed, which takes the rest of a page, and some rows more.
    while began.elapsed() < LONGEST_FULL
        && system.complaints(NO_ROOM).iter().zip(before).any(|(&now, before)| now == before)
    {
        system.pump(Duration::from_millis(100))?;
    }
    let noticed = system.complaints(NO_ROOM).into_iter().zip(before);
    for (id, (now, before)) in [Id::Up, Id::Agent].into_iter().zip(noticed) {
        if now == before {
            system.incidents.push(format!("{} did not say that the disk is full", id.name()));
        }
    }
    system.pump(WAITING)?;
    drop(file);
    std::fs::remove_file(filler)?;
    Ok(Instant::now())
}

/// Looks after everything until a thread has ended.
fn finished<T>(thread: JoinHandle<T>, system: &mut System) -> anyhow::Result<T> {
    while !thread.is_finished() {
        system.pump(Duration::from_millis(20))?;
    }
    thread.join().map_err(|_| anyhow!("a fault panicked"))
}
