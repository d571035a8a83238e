//! What happens when: a function of how long there is and of the seed, so that a soak that failed can be had again.
//!
//! A cycle begins with the death of each part, so that all of them have a life of the cycle's length; the other faults follow, round by
//! round, each once in every round and in another order. Memory is compared by whole rounds, from the one on in which nothing is new to a
//! process any more: where it is judged, a quarter of an hour comes before the time that was asked for. That has crowds, too, and larger ones
//! than what follows: what a process keeps of connections that were there at the same time (tables, caches of threads) has its size by
//! then. Invariant: each fault comes at least once in every cycle.

use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::parts::Id;

/// From one fault to the next: the longest fault takes seven seconds, what it broke has three to come back, and a second is calm.
pub(super) const SLOT: Duration = Duration::from_secs(11);

/// Until everything runs, and until it has ended.
const AROUND: Duration = Duration::from_secs(15);

/// The least time in which each fault comes once.
pub(super) const LEAST_MINUTES: u32 = 3;

/// The least time that has enough rounds to compare.
pub(super) const JUDGES_MEMORY: u32 = 20;

/// Who is to be watched for longer is killed once more, and begins anew.
const CYCLE_MINUTES: u32 = 30;

/// Those who come again and again before processes are warm, and how often. Until then broken clients are more at a time, too.
const CROWDS: [(Fault, usize); 2] = [(Fault::BrokenClients, 16), (Fault::Flows, 8)];

/// Rounds after that until they are: all in all a quarter of an hour.
const WARM_UP_ROUNDS: usize = 7;

/// What is done to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The broker dies and comes back.
    NatsKilled,
    /// The engine behind the gateway dies and comes back.
    EngineKilled,
    /// An interface goes down and up again.
    InterfaceDown,
    /// The wall clock jumps forwards and back.
    ClockStepped,
    /// There is no room for rows.
    DiskFull,
    /// Ten thousand connections open and close.
    Flows,
    /// Clients that do everything wrong.
    BrokenClients,
    /// A part of ours dies without a word and is started again.
    Killed(Id),
    /// The part of the fleet that leads dies.
    LeaderKilled,
    /// The one that does not lead.
    FollowerKilled,
}

/// Those that end no part of ours.
const DISTURBANCES: [Fault; 7] = [
    Fault::NatsKilled,
    Fault::EngineKilled,
    Fault::InterfaceDown,
    Fault::ClockStepped,
    Fault::DiskFull,
    Fault::Flows,
    Fault::BrokenClients,
];

/// Those that do.
const DEATHS: [Fault; 7] = [
    Fault::Killed(Id::Up),
    Fault::Killed(Id::Agent),
    Fault::Killed(Id::Serve),
    Fault::Killed(Id::Gateway),
    Fault::Killed(Id::Dashboard),
    Fault::LeaderKilled,
    Fault::FollowerKilled,
];

/// A fault's place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) cycle: usize,
    pub(super) fault: Fault,
    /// Which whole round it is part of, through all cycles, where processes are warm and what their memory grows by counts.
    pub(super) warm_round: Option<usize>,
}

/// All faults of so many minutes; where memory is judged, after those of getting warm.
pub(super) fn schedule(minutes: u32, seed: u64) -> Vec<Slot> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let is_judged = minutes >= JUDGES_MEMORY;
    let time = Duration::from_secs(60 * u64::from(minutes)).saturating_sub(AROUND);
    let slots = (time.as_secs() / SLOT.as_secs()) as usize;
    let cycles = (minutes / CYCLE_MINUTES).max(1) as usize;
    let mut schedule = Vec::with_capacity(slots);
    let mut warm_rounds = 0..;
    for cycle in 0..cycles {
        let mut deaths = DEATHS;
        deaths.shuffle(&mut random);
        // After the leader's death the follower leads, and who was killed follows: the same one would be killed twice.
        let place = |fault| deaths.iter().position(|&death| death == fault);
        if let (Some(leader), Some(follower)) =
            (place(Fault::LeaderKilled), place(Fault::FollowerKilled))
            && leader < follower
        {
            deaths.swap(leader, follower);
        }
        let cold = |fault| Slot { cycle, fault, warm_round: None };
        schedule.extend(deaths.map(cold));
        let mut left = slots * (cycle + 1) / cycles - slots * cycle / cycles;
        if is_judged {
            for (fault, times) in CROWDS {
                schedule.extend(std::iter::repeat_n(cold(fault), times));
            }
            for _ in 0..WARM_UP_ROUNDS {
                schedule.extend(round(&mut random).map(cold));
            }
        } else {
            // A short run has one round all the same.
            left = left.saturating_sub(DEATHS.len()).max(DISTURBANCES.len());
        }
        while left > 0 {
            let taken = left.min(DISTURBANCES.len());
            left -= taken;
            let is_whole = taken == DISTURBANCES.len();
            let warm_round = warm_rounds.next().filter(|_| is_judged && is_whole);
            let faults = round(&mut random).into_iter().take(taken);
            schedule.extend(faults.map(|fault| Slot { cycle, fault, warm_round }));
        }
    }
    schedule
}

fn round(random: &mut Xoshiro256PlusPlus) -> [Fault; DISTURBANCES.len()] {
    let mut faults = DISTURBANCES;
    faults.shuffle(random);
    faults
}

impl Fault {
    /// As it stands in the table.
    pub(super) fn name(self) -> String {
        match self {
            Self::NatsKilled => "NATS killed, restored".to_owned(),
            Self::EngineKilled => "engine killed, restarted".to_owned(),
            Self::InterfaceDown => "interface down, up".to_owned(),
            Self::ClockStepped => "clock stepped by hours, back".to_owned(),
            Self::DiskFull => "disk full, room again".to_owned(),
            Self::Flows => "10,000 flows open and close".to_owned(),
            Self::BrokenClients => "broken clients".to_owned(),
            Self::Killed(id) => format!("{} killed, restarted", id.name()),
            Self::LeaderKilled => "fleet's leader killed, restarted".to_owned(),
            Self::FollowerKilled => "fleet's follower killed, restarted".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::LEAST_ROUNDS;
    use super::*;

    #[test]
    fn every_fault_comes_in_every_cycle() {
        for minutes in [LEAST_MINUTES, 5, 10, 15, 30, 47, 120] {
            let schedule = schedule(minutes, 1);
            let cycles = schedule.last().expect("a slot").cycle + 1;
            for cycle in 0..cycles {
                for fault in DEATHS.iter().chain(&DISTURBANCES) {
                    let times = schedule
                        .iter()
                        .filter(|slot| slot.cycle == cycle && slot.fault == *fault)
                        .count();
                    assert!(times >= 1, "{minutes} minutes, cycle {cycle}: {fault:?}");
                }
            }
            let asked =
                60 * minutes + if minutes < JUDGES_MEMORY { 0 } else { 15 * 60 * cycles as u32 };
            let takes = SLOT * schedule.len() as u32 + AROUND;
            assert!(takes <= Duration::from_secs(asked.into()), "{minutes}: {takes:?}");
        }
    }

    #[test]
    fn both_processes_of_the_fleet_die() {
        for seed in 0..20 {
            let schedule = schedule(30, seed);
            let at = |fault| schedule.iter().position(|slot| slot.fault == fault).expect("a death");
            assert!(at(Fault::FollowerKilled) < at(Fault::LeaderKilled), "seed {seed}");
        }
    }

    #[test]
    fn memory_is_compared_by_whole_rounds() {
        let check = |minutes: u32, least: usize| {
            let schedule = schedule(minutes, 1);
            let cycles = schedule.last().expect("a slot").cycle + 1;
            for cycle in 0..cycles {
                let warm: Vec<&[Slot]> = schedule
                    .chunk_by(|a, b| a.warm_round == b.warm_round)
                    .filter(|slots| slots[0].cycle == cycle && slots[0].warm_round.is_some())
                    .collect();
                assert!(warm.len() >= least, "{minutes} minutes, cycle {cycle}: {}", warm.len());
                for round in warm {
                    let once = |fault| round.iter().filter(|slot| slot.fault == fault).count() == 1;
                    assert!(DISTURBANCES.into_iter().all(once), "{round:?}");
                }
            }
        };
        check(JUDGES_MEMORY, LEAST_ROUNDS);
        check(30, 23);
        check(75, 23);
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        assert_eq!(schedule(10, 7), schedule(10, 7));
        assert_ne!(schedule(10, 7), schedule(10, 8));
    }
}
