//! Making silver anew from bronze by the present processor, beside the running pipeline, and putting the result in its
//! place in both stores.
//!
//! ```text
//! bronze ──read──► process ──► draft of silver ──► draft of the hot store
//!                                   │ compare                │
//!                   silver ◄────────┴───── exchange ─────────┴───► hot store
//! ```
//!
//! A draft is a function of bronze, as silver is: records in the order of their offsets, repeats told by the draft's own rows.
//! It is made up to where silver stands, while that goes on; then the pipeline pauses, the rest is made, and the exchange
//! is a commit. What the pipeline makes after it, the present processor makes too.
//!
//! | the process dies | what holds |
//! | --- | --- |
//! | while the draft is made or compared | both stores are as they were; asked again, the draft goes on from its last commit |
//! | while the pipeline pauses, before the exchange | the same |
//! | between silver's commit and the end of the exchange | the next start does the rest ([`Reprocess::finish`]) before a pipeline begins |

mod bronze;
mod difference;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use contract::{
    ColdDrafts, Draft, DraftOf, Error, Held, HotDrafts, LogRecord, OffsetRange, Positions, Remedy, Result, Rows,
    RowsBuilder, Span, Timestamp, bronze_schema, limits,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use difference::{Change, Difference};

use crate::known_ids::KnownIds;
use crate::rebuild::fill_hot;
use crate::retry::{Retry, until_done};
use crate::{Engines, Recipe};
use bronze::Bronze;

/// Makes silver of one source anew.
pub struct Reprocess {
    /// The engines whose pipeline goes on meanwhile.
    pub engines: Engines,
    /// The hot store of `engines`.
    pub hot: Arc<dyn HotDrafts>,
    /// The cold store of `engines`.
    pub cold: Arc<dyn ColdDrafts>,
    /// What makes the rows.
    pub recipe: Recipe,
    /// Bytes of rows after which the draft commits.
    pub commit_bytes_max: usize,
}

/// What silver is to be exchanged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What the present processor makes of bronze.
    Anew(DraftOf),
    /// What it was before the last exchange, and what the present processor makes of the records since.
    Previous {
        /// See [`DraftOf::made_by`].
        made_by: String,
    },
}

/// How far a draft is: records of bronze that it covers, and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets that are done.
    pub done: u64,
    /// Offsets that silver covers.
    pub all: u64,
}

impl Reprocess {
    fn what(&self) -> String {
        format!("{} draft", self.recipe.schema.source)
    }

    /// Does the rest of an exchange that a crash cut short. Only before the source's pipeline begins: what it would write
    /// meanwhile is not in the draft. Answers whether there was one.
    ///
    /// # Errors
    /// When a store cannot be read or written.
    pub async fn finish(&self) -> Result<bool> {
        let source = self.recipe.schema.source;
        match self.cold.draft(source).await? {
            Some(draft) if draft.is_exchanged => {
                let (what, held, stop) = (self.what(), self.cold.hold().await, CancellationToken::new());
                until_done(&what, &self.engines.troubles, &stop, || self.cold.exchange(source, &held)).await?;
                self.follow(&draft).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The draft of what is wanted that was begun before.
    ///
    /// # Errors
    /// `Change` when what is wanted cannot be; else as above.
    pub async fn begun(&self, wanted: &Wanted) -> Result<Option<Draft>> {
        let source = self.recipe.schema.source;
        let columns_change = self.cold.is_of_other_columns(source);
        match wanted {
            Wanted::Anew(of) if of.since.is_some() && columns_change => Err(Error::change(format!(
                "make `silver.{source}` anew: its columns change, so all rows have to; leave out `--since`"
            ))),
            Wanted::Anew(of) => Ok(self.cold.draft(source).await?.filter(|draft| draft.of == *of)),
            Wanted::Previous { made_by } => {
                Ok(self.cold.draft(source).await?.filter(|draft| draft.of.made_by == of_previous(made_by)))
            }
        }
    }

    /// Begins a draft of what is wanted, in the stead of any that was begun.
    ///
    /// # Errors
    /// `Change` when it cannot be; else as above.
    pub async fn begin(&self, wanted: &Wanted) -> Result<Draft> {
        let source = self.recipe.schema.source;
        self.hot.end_draft(source).await?;
        match wanted {
            Wanted::Anew(of) => self.cold.begin_draft(source, of).await,
            Wanted::Previous { made_by } => self.cold.begin_draft_of_previous(source, &of_previous(made_by)).await,
        }
    }

    /// Offsets of silver that the draft has not.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub async fn left(&self, draft: &Draft) -> Result<u64> {
        let source = self.recipe.schema.source;
        let (now, done) = (self.cold.committed(source).await?, draft.store.committed(source).await?);
        Ok(offsets(&now).saturating_sub(offsets(&done)))
    }

    /// Brings the draft to where silver stands now. Ends early, between two commits, when `stop` is said: false then.
    ///
    /// # Errors
    /// When a store cannot be read or written.
    pub async fn catch_up(
        &self,
        draft: &Draft,
        stop: &CancellationToken,
        progress: &watch::Sender<Progress>,
    ) -> Result<bool> {
        match self.try_catch_up(draft, stop, progress).await {
            Ok(()) => Ok(!stop.is_cancelled()),
            // What waited for a store was told to end.
            Err(error) if stop.is_cancelled() && error.remedy() == Remedy::Retry => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn try_catch_up(
        &self,
        draft: &Draft,
        stop: &CancellationToken,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let (source, what, troubles) = (self.recipe.schema.source, self.what(), &self.engines.troubles);
        let until = until_done(&what, troubles, stop, || self.cold.committed(source)).await?;
        let at = until_done(&what, troubles, stop, || draft.store.committed(source)).await?;
        let mut bronze = Bronze::new(source, draft.of.since, at, until.clone());
        let mut known = KnownIds::new(self.recipe.schema, limits::KNOWN_IDS_BYTES_MAX);
        known.committed(bronze.at());
        let (mut waiting, mut retry) = (0, Retry::new(&what, troubles, stop));
        let tell = |at: &Positions| progress.send_replace(Progress { done: offsets(at), all: offsets(&until) });
        while !stop.is_cancelled() {
            let (records, ranges) = match bronze.next(&self.engines).await {
                Ok(Some(step)) => step,
                Ok(None) => break,
                Err(error) => {
                    retry.pause(error).await?;
                    continue;
                }
            };
            while let Err(error) = known.prepare(&*draft.store, &records).await {
                retry.pause(error).await?;
            }
            let rows = tokio::task::block_in_place(|| self.rows(&mut known, &records, ranges));
            until_done(&what, troubles, stop, || draft.store.write(&rows)).await?;
            waiting += rows.memory_bytes();
            if waiting >= self.commit_bytes_max {
                known.committed(&until_done(&what, troubles, stop, || draft.store.commit(source)).await?);
                waiting = 0;
            }
            tell(bronze.at());
        }
        until_done(&what, troubles, stop, || draft.store.commit(source)).await?;
        tell(bronze.at());
        Ok(())
    }

    fn rows(&self, known: &mut KnownIds, records: &[LogRecord], ranges: Vec<OffsetRange>) -> Rows {
        let mut builder = RowsBuilder::new(self.recipe.schema);
        known.add_rows(&mut builder, self.recipe.processor, records, |_| {});
        let rows = builder.finish(Span { source: self.recipe.schema.source, ranges });
        // Bronze is there already.
        Rows { bronze: RecordBatch::new_empty(bronze_schema()), ..rows }
    }

    /// Fills the draft of the hot store from that of silver. False as above.
    ///
    /// # Errors
    /// As above.
    pub async fn fill(&self, draft: &Draft, stop: &CancellationToken) -> Result<bool> {
        let source = self.recipe.schema.source;
        let hot = self.hot.draft(source).await?;
        let (from, to) = (hot.committed(source).await?, draft.store.committed(source).await?);
        let missing = to.0.iter().map(|(&partition, &to)| OffsetRange { partition, from: from.of(partition), to });
        let missing: Vec<_> = missing.filter(|range| range.from < range.to).collect();
        let engines = Engines { hot: hot.clone(), cold: draft.store.clone(), ..self.engines.clone() };
        let (filled, _) = watch::channel(Positions::default());
        match fill_hot(&engines, self.recipe, &missing, &filled, stop).await {
            Err(error) if stop.is_cancelled() && error.remedy() == Remedy::Retry => Ok(false),
            filled => filled.map(|()| !stop.is_cancelled()),
        }
    }

    /// What the draft changes, up to where it stands; none when `stop` was said meanwhile.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub async fn compare(
        &self,
        draft: &Draft,
        examples_max: usize,
        stop: &CancellationToken,
    ) -> Result<Option<Difference>> {
        difference::between(self, draft, examples_max, stop).await
    }

    /// Puts the draft in the place of silver and of the hot store's rows. The source's pipeline pauses, and both drafts stand
    /// where silver does.
    ///
    /// # Errors
    /// When a store cannot be read or written. After silver's commit, see [`Reprocess::is_exchanged`], the source's pipeline must
    /// not go on: the next start does the rest.
    pub async fn exchange(&self, draft: &Draft, held: &Held, stop: &CancellationToken) -> Result<()> {
        let (source, what) = (self.recipe.schema.source, self.what());
        until_done(&what, &self.engines.troubles, stop, || self.cold.exchange(source, held)).await?;
        self.follow(draft).await
    }

    /// Whether the draft took silver's place, or it cannot be told.
    pub async fn is_exchanged(&self) -> bool {
        let draft = self.cold.draft(self.recipe.schema.source).await;
        draft.map_or(true, |draft| draft.is_some_and(|draft| draft.is_exchanged))
    }

    /// What comes after the exchange in the cold store.
    async fn follow(&self, draft: &Draft) -> Result<()> {
        let (source, stop) = (self.recipe.schema.source, CancellationToken::new());
        let (what, troubles) = (self.what(), &self.engines.troubles);
        until_done(&what, troubles, &stop, || self.hot.exchange(source, draft.of.since)).await?;
        until_done(&what, troubles, &stop, || self.cold.end_draft(source)).await
    }

    /// Forgets the draft.
    ///
    /// # Errors
    /// When a store cannot be written.
    pub async fn discard(&self) -> Result<()> {
        let source = self.recipe.schema.source;
        self.hot.end_draft(source).await?;
        self.cold.end_draft(source).await
    }

    /// From when on rows are made anew so that those from `since` on are among them: a period, and an index of the hot
    /// store, are made anew as a whole.
    ///
    /// # Errors
    /// When the hot store cannot be read.
    pub async fn boundary(&self, since: Timestamp) -> Result<Timestamp> {
        let schema = self.recipe.schema;
        let period = schema.period.first_day(since).start();
        let index = self.hot.boundary(schema.source, period).await?;
        Ok(schema.period.first_day(index.min(period)).start())
    }
}

/// A draft of what silver was is not one of what bronze gives.
fn of_previous(made_by: &str) -> String {
    format!("{made_by}, of what was before")
}

fn offsets(at: &Positions) -> u64 {
    at.0.values().map(|next| next.unsigned_abs()).sum()
}
