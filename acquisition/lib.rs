//! The sources: from fetch to understood row. One folder per source, one line in [`SOURCES`].
//!
//! A source is a [`contract::RowSchema`], a [`contract::Processor`] and its collectors: those that poll it, those that
//! read its files for a backfill, and one that reads the sample that ships with the program.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use contract::limits::{HARVEST_BYTES_MAX, HARVEST_RECORDS_MAX};
use contract::{Clock, Collector, Error, Processor, Result, RowSchema, SourceId, SystemClock, Webhook};
use serde::{Deserialize, Serialize};

mod address_guard;
pub mod arxiv;
mod columns;
pub mod dns;
mod file;
pub mod github;
mod hexadecimal;
mod http;
pub mod news;
mod push;
#[cfg(any(test, feature = "replay"))]
pub mod replay;
mod unpack;

pub use contract::Secret;
pub use file::hash_start;

/// Every source. The list is the overview; a test holds each to the same battery.
pub static SOURCES: &[Source] = &[arxiv::SOURCE, dns::SOURCE, github::SOURCE, news::SOURCE];

/// What brings a source's records while the program runs.
#[derive(Default)]
pub struct Collectors {
    /// Each with a name of its own.
    pub polled: Vec<Box<dyn Collector>>,
    /// What takes requests of the source's servers; their records come out of one of the collectors.
    pub webhooks: Vec<Arc<dyn Webhook>>,
}

impl fmt::Debug for Collectors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let polled = self.polled.iter().map(|collector| collector.id().0).collect::<Vec<_>>();
        let webhooks = self.webhooks.iter().map(|webhook| webhook.path()).collect::<Vec<_>>();
        out.debug_struct("Collectors").field("polled", &polled).field("webhooks", &webhooks).finish()
    }
}

/// One source.
pub struct Source {
    /// Its name, which is also that of its folder, topic and tables.
    pub id: SourceId,
    /// The columns of its rows.
    pub schema: &'static RowSchema,
    /// Makes rows of its records.
    pub processor: &'static dyn Processor,
    /// The collectors that poll it, as set; `Change` when a setting is wrong.
    pub collectors: fn(&Settings, &Context) -> Result<Collectors>,
    /// Opens one of its files for a backfill; blocks for as long as reading the file once takes.
    pub open_file: fn(&Path, &Settings, &Context) -> Result<OpenFile>,
    /// The sample that ships with the program, its times moved so that the newest is now.
    pub sample: fn(&Context) -> OpenFile,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Source").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The source of a name.
///
/// # Errors
/// `Change` when there is none; the error lists those that are known, and the one that is near.
pub fn source(name: &str) -> Result<&'static Source> {
    SOURCES.iter().find(|source| source.id.0 == name).ok_or_else(|| {
        let known = || SOURCES.iter().map(|source| source.id.0);
        let all = known().collect::<Vec<_>>().join(", ");
        Error::change(format!("open source `{name}` (known: {all}){}", contract::nearest(name, known())))
    })
}

/// Takes what processors need of the settings, before any row is made.
///
/// # Errors
/// `Change` when a setting is wrong.
pub fn prepare(settings: &Settings) -> Result<()> {
    dns::prepare(&settings.dns)
}

/// What the user sets of the sources: one section each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// arXiv.
    pub arxiv: arxiv::Settings,
    /// DNS.
    pub dns: dns::Settings,
    /// GitHub.
    pub github: github::Settings,
    /// News.
    pub news: news::Settings,
}

/// What collectors are given beside the settings.
#[derive(Clone)]
pub struct Context {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How much one harvest of a file brings at the most.
    pub harvest: HarvestSize,
}

impl Default for Context {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), harvest: HarvestSize::default() }
    }
}

/// How much one harvest of a file brings at the most; smaller ones make more hand-overs for tests to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HarvestSize {
    /// Records.
    pub records_max: usize,
    /// Bytes of bodies; one larger record may exceed it.
    pub bytes_max: usize,
}

impl Default for HarvestSize {
    fn default() -> Self {
        Self { records_max: HARVEST_RECORDS_MAX, bytes_max: HARVEST_BYTES_MAX }
    }
}

/// A file that a backfill reads, and what is to be told about it meanwhile.
pub struct OpenFile {
    /// Polled until it says that there will never be more.
    pub collector: Box<dyn Collector>,
    /// Bytes of the file, compressed.
    pub bytes_total: u64,
    /// Bytes of it that are read, compressed; for a progress bar.
    pub bytes_read: Arc<AtomicU64>,
    /// Damage that was found, for the user; whole once the last harvest is there.
    pub notes: Arc<Mutex<Vec<String>>>,
    /// Pieces that carry no record by design: the action lines of a bulk request, packets without DNS.
    pub skipped: Arc<AtomicU64>,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OpenFile").field("collector", &self.collector.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod battery;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_source_is_answered_with_the_known_and_the_nearest() {
        let error = source("gihub").expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "failed to open source `gihub` (known: arxiv, dns, github, news); did you mean `github`?"
        );
        assert_eq!(source("github").expect("there is").id.0, "github");
    }
}
