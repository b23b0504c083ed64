//! Drafts: rows of a source made anew beside those in use, until they take their place.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ColdStore, HotStore, Result, SourceId, Timestamp};

/// What a draft is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftOf {
    /// Only rows of the period of event time that begins here, and of later ones; all when none.
    pub since: Option<Timestamp>,
    /// Which program makes its rows. What another one began is not gone on with.
    pub made_by: String,
}

/// A draft of `silver.SOURCE` and of the source's dead letters.
#[derive(Clone)]
pub struct Draft {
    /// What it is to hold.
    pub of: DraftOf,
    /// Takes its rows and answers for them, under the names of the tables. Its bronze stays empty.
    pub store: Arc<dyn ColdStore>,
    /// Whether it has taken the place of silver, so that only the rest is to be done: see [`ColdDrafts::exchange`].
    pub is_exchanged: bool,
}

/// What silver was before the last exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// From which period on it differs: what `since` was.
    pub since: Option<Timestamp>,
    /// When it left its place.
    pub left_at: Timestamp,
    /// Until when it is kept at the least.
    pub kept_until: Timestamp,
}

/// As long as it lives, no maintenance of the cold store runs.
#[derive(Clone)]
pub struct Held(#[expect(dead_code, reason = "held, not used: what it keeps ends with it")] Arc<dyn Send + Sync>);

impl Held {
    /// Held by what ends with it.
    pub fn by(guard: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(guard))
    }
}

/// A cold store that can hold drafts. There is one draft of a source at the most.
///
/// | the process dies | what holds |
/// | --- | --- |
/// | while a draft is made | as for any cold store: its rows up to its last commit are there, and it goes on from them |
/// | in `exchange`, before silver's commit | silver is as it was, the draft is there |
/// | in `exchange`, after it | silver is the new one; [`Draft::is_exchanged`] says that the dead letters and the hot store are to follow |
/// | in `end_draft` | as before it, or after |
#[async_trait]
pub trait ColdDrafts: ColdStore {
    /// Whether silver has other columns than this version writes, so that it takes no rows before it is made anew.
    fn is_of_other_columns(&self, source: SourceId) -> bool;

    /// The draft that was begun.
    ///
    /// # Errors
    /// When its tables cannot be read.
    async fn draft(&self, source: SourceId) -> Result<Option<Draft>>;

    /// Begins a draft without rows, in the stead of one that was begun.
    ///
    /// # Errors
    /// As [`crate::Store::write`].
    async fn begin_draft(&self, source: SourceId, of: &DraftOf) -> Result<Draft>;

    /// The same with the rows of [`ColdDrafts::previous`], from whose position it goes on.
    ///
    /// # Errors
    /// As `begin_draft`; `Change` when nothing is kept, or this version cannot read it.
    async fn begin_draft_of_previous(&self, source: SourceId, made_by: &str) -> Result<Draft>;

    /// What silver was before, if it is still kept.
    ///
    /// # Errors
    /// When its tables cannot be read.
    async fn previous(&self, source: SourceId) -> Result<Option<Previous>>;

    /// The columns that silver lacks, or has of another type than this version writes.
    ///
    /// # Errors
    /// For an unknown source.
    async fn other_columns(&self, source: SourceId) -> Result<Vec<String>>;

    /// Waits until no maintenance runs, and keeps it so.
    async fn hold(&self) -> Held;

    /// Puts the draft in the place of silver, in one commit; then the dead letters. Both must end at the same offsets,
    /// and no row may wait for a commit. What silver was is kept as the previous one. Called again it does what is left.
    ///
    /// # Errors
    /// `Change` when silver went on meanwhile, `Retry` when another process was faster; as [`crate::Store::write`].
    async fn exchange(&self, source: SourceId, held: &Held) -> Result<()>;

    /// Forgets the draft. Its files go with the next vacuum, unless they are silver's by now.
    ///
    /// # Errors
    /// When the disk or peer fails.
    async fn end_draft(&self, source: SourceId) -> Result<()>;
}

/// A hot store that can hold drafts. There is one draft of a source at the most.
#[async_trait]
pub trait HotDrafts: HotStore {
    /// From when on rows can be exchanged so that those from `since` on are among them: an index goes as a whole.
    ///
    /// # Errors
    /// As [`HotDrafts::draft`].
    async fn boundary(&self, source: SourceId, since: Timestamp) -> Result<Timestamp>;

    /// A store for the rows of a source made anew, which no search sees; the one that was begun, or an empty one.
    ///
    /// # Errors
    /// As [`crate::Store::write`].
    async fn draft(&self, source: SourceId) -> Result<Arc<dyn HotStore>>;

    /// Puts the draft in the place of the rows from `since` on: at once for a search, which sees all of the one or all of the
    /// other. The store's position becomes the draft's. Called again after a crash it does what is left; without a
    /// draft it does nothing.
    ///
    /// # Errors
    /// As [`crate::Store::write`].
    async fn exchange(&self, source: SourceId, since: Option<Timestamp>) -> Result<()>;

    /// Forgets the draft.
    ///
    /// # Errors
    /// When the disk or peer fails.
    async fn end_draft(&self, source: SourceId) -> Result<()>;
}
