//! All parts together: their start, their lives and deaths, and their end.
//!
//! The soak is their service manager. What ends of its own accord is started again, and told: nothing here may. Invariants: everything is
//! started by the main thread, with which it dies; when a [`System`] is gone, so is all that it made.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use netdiag_health::{FEATURES, Model, TrainingSet};
use netdiag_iforest::Params;
use netdiag_lab::{Lab, ServerSide};
use tempfile::TempDir;

use super::load;
use super::memory::Life;
use super::parts::{ALL, CLOCKS, Id, Part, Places};
use super::rows::Excuse;
use super::signs::Watching;

/// Of the small file system: what both files need, twice.
const DISK: &str = "size=512k";

/// How often parts are looked after, and weighed.
const LOOK: Duration = Duration::from_millis(50);
const WEIGH: Duration = Duration::from_secs(1);

/// How long everything may take to be well at the start.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a dead part's rows may be away beyond its restart: until the probe is loaded, and an interval.
const FIRST_ROW: Duration = Duration::from_secs(3);

pub(super) struct System {
    pub(super) lab: Lab,
    pub(super) places: Places,
    pub(super) watching: Watching,
    pub(super) begun: Instant,
    pub(super) excuses: Vec<Excuse>,
    /// How often the clock was stepped back.
    pub(super) steps_back: i64,
    /// What must not have happened.
    pub(super) incidents: Vec<String>,
    /// Lives that have ended.
    pub(super) lives: Vec<Life>,
    /// The present round, if what processes weigh in it counts.
    pub(super) warm_round: Option<usize>,
    parts: Vec<Part>,
    present: BTreeMap<Id, Life>,
    weighed: Instant,
    interrupted: Arc<AtomicBool>,
    folder: TempDir,
}

/// Of a link that wanders a little.
fn model() -> anyhow::Result<Model> {
    let noise = |row: u16, by: u16| f32::from(row * by % 101) / 101.0;
    let row = |i| [0.1 * noise(i, 37), 0.1, 0.004 * noise(i, 53), 0.02 * noise(i, 71) - 0.01];
    let rows: Vec<[f32; FEATURES]> = (0..300).map(row).collect();
    Ok(TrainingSet::new(rows).train(&Params::default())?)
}

impl System {
    /// Makes the lab and the file systems and starts all parts. The mount namespace must be the soak's own.
    pub(super) fn start(
        netdiag: &Path,
        engine: &Path,
        seed: u64,
        logs: &Path,
        interrupted: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let lab = Lab::start_links(load::links()?, ServerSide::Namespace, seed)?;
        // Beside the logs, where the next soak clears up what a killed one has left.
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(logs)?;
        let places = Places {
            netdiag: netdiag.to_owned(),
            engine: engine.to_owned(),
            folder: folder.path().to_owned(),
            logs: logs.to_owned(),
            netns: lab.server_netns().to_owned(),
            mark: format!("{}-{seed}", std::process::id()),
        };
        std::fs::create_dir(places.disk())?;
        mount(&places.disk(), DISK)?;
        std::fs::write(places.model(), model()?.render())?;
        // Where libfaketime puts what it shares, and leaves it when a process is killed.
        mount(Path::new("/dev/shm"), "size=16m")?;
        mount(Path::new(CLOCKS), "size=64k")?;
        let watching = Watching::start(&lab)?;
        let mut system = Self {
            lab,
            places,
            watching,
            begun: Instant::now(),
            excuses: Vec::new(),
            steps_back: 0,
            incidents: Vec::new(),
            lives: Vec::new(),
            warm_round: None,
            parts: ALL.map(Part::new).into(),
            present: BTreeMap::new(),
            weighed: Instant::now(),
            interrupted,
            folder,
        };
        system.set_clock(0)?;
        for id in ALL {
            system.start_part(id)?;
            if id == Id::Nats {
                // The others would wait for it a second.
                system.pump(Duration::from_millis(500))?;
            }
        }
        while let Some(missing) = system.missing() {
            ensure!(
                system.begun.elapsed() < PATIENCE,
                "there are no {missing}; see {}",
                logs.display()
            );
            system.pump(LOOK)?;
        }
        Ok(system)
    }

    /// A sign that is not there.
    fn missing(&self) -> Option<&'static str> {
        self.watching.signs.iter().find(|sign| !sign.is_there()).map(|sign| sign.name)
    }

    /// Looks after everything for so long. An error if the soak is interrupted.
    pub(super) fn pump(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if let Some(error) = self.lab.failed() {
                return Err(error.into());
            }
            for at in 0..self.parts.len() {
                if let Some(status) = self.parts[at].ended()? {
                    let (id, said) = (self.parts[at].id, self.parts[at].last_words(&self.places));
                    self.incidents
                        .push(format!("{} ended by itself ({status}): {said}", id.name()));
                    self.bury(id);
                    self.start_part(id)?;
                }
            }
            if self.weighed.elapsed() >= WEIGH {
                self.weighed = Instant::now();
                for part in &self.parts {
                    if let (Some(life), Some(weight)) =
                        (self.present.get_mut(&part.id), part.weigh())
                    {
                        life.note(weight, self.warm_round);
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Kills a part; its rows are excused until some time after its restart.
    pub(super) fn kill(&mut self, id: Id) -> anyhow::Result<()> {
        let now = Instant::now();
        self.part(id)?.kill()?;
        self.bury(id);
        self.excuses.push(Excuse { id: Some(id), from: now, to: now + FIRST_ROW });
        Ok(())
    }

    pub(super) fn start_part(&mut self, id: Id) -> anyhow::Result<()> {
        let at = self.parts.iter().position(|part| part.id == id).context("no such part")?;
        let stdout = self.parts[at].start(&self.places)?;
        if let Some(stdout) = stdout {
            self.watching.hear(stdout);
        }
        self.present.insert(id, Life::new(id));
        Ok(())
    }

    fn part(&mut self, id: Id) -> anyhow::Result<&mut Part> {
        self.parts.iter_mut().find(|part| part.id == id).context("no such part")
    }

    fn bury(&mut self, id: Id) {
        self.lives.extend(self.present.remove(&id));
    }

    /// Lets all parts be told that the time differs by so many seconds.
    pub(super) fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        for clock in [Id::Agent, Id::Up].map(|id| self.places.clock(id)) {
            // Whole at any time: they read it whenever they like.
            let new = clock.with_extension("new");
            std::fs::write(&new, format!("{seconds:+}"))?;
            std::fs::rename(new, clock)?;
        }
        Ok(())
    }

    /// Ends all parts in the way a service manager does; each must end well.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.parts.iter().for_each(Part::tell_to_end);
        for at in 0..self.parts.len() {
            let id = self.parts[at].id;
            // Others' programs have their own ways.
            match self.parts[at].wait()? {
                Some(status) if status.success() || !id.is_ours() => {}
                Some(status) => self.incidents.push(format!(
                    "{} ended with {status} when told to: {}",
                    id.name(),
                    self.parts[at].last_words(&self.places)
                )),
                None => self.incidents.push(format!("{} did not end when told to", id.name())),
            }
            self.bury(id);
        }
        self.watching.end();
        Ok(())
    }

    /// How often `up` and `agent` have said this.
    pub(super) fn complaints(&self, what: &str) -> [usize; 2] {
        [Id::Up, Id::Agent].map(|id| self.places.times_said(id, what))
    }

    /// How often each part was started.
    pub(super) fn starts(&self) -> BTreeMap<Id, u32> {
        self.parts.iter().map(|part| (part.id, part.starts)).collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for part in &mut self.parts {
            let _ = part.kill();
        }
        self.watching.end();
        for mounted in [&*self.places.disk(), Path::new("/dev/shm"), Path::new(CLOCKS)] {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

/// Mounts a file system of this process's own.
fn mount(at: &Path, options: &str) -> anyhow::Result<()> {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .stdin(Stdio::null())
        .status()
        .context("cannot run mount")?;
    ensure!(status.success(), "cannot mount a file system at {}", at.display());
    Ok(())
}
