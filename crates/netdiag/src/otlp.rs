//! The export of metrics as commands use it: on a thread of its own, so that a collector's troubles are nobody else's.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::Context as _;
use netdiag_metrics::{ExportStatus, Scrape};
use netdiag_otlp::{Settings, export};

use crate::bus;
use crate::stop::Stop;

/// An export that is going to be: its settings, and what becomes of it, which servers show.
#[derive(Debug)]
pub(crate) struct Export {
    settings: Settings,
    status: ExportStatus,
}

impl Export {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, status: ExportStatus::default() }
    }

    /// For the servers' metrics.
    pub(crate) fn status(&self) -> ExportStatus {
        self.status.clone()
    }

    /// Where metrics go, for people.
    pub(crate) fn place(&self) -> String {
        self.settings.endpoint.to_string()
    }

    /// Pushes what `scrapes` tell until the stop. `found` is told where the collector is.
    pub(crate) fn start(
        self,
        scrapes: Vec<Scrape>,
        found: impl Fn(&[SocketAddr]) + Send + 'static,
        stop: &Stop,
    ) -> anyhow::Result<Exporting> {
        let runtime = bus::runtime()?;
        let (Self { settings, status }, stop) = (self, stop.clone());
        let thread = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                runtime.block_on(export(&settings, &scrapes, &status, found, stop.asked()));
                // A name that takes its time to be resolved delays nobody.
                runtime.shutdown_background();
            })
            .context("cannot start the thread that exports metrics")?;
        Ok(Exporting(thread))
    }
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Exporting(JoinHandle<()>);

impl Exporting {
    /// Waits for the end, which a [`Stop`] brings about.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.0.join().map_err(|_| anyhow::anyhow!("the thread that exports metrics panicked"))
    }
}
