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

use contract::{
    ColdDrafts, Draft, DraftOf, Error, HotDrafts, OffsetRange, Positions, Result, RowsBuilder, Span, Timestamp,
    bronze_schema, limits,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use difference::{Change, Difference};

use crate::known_ids::KnownIds;
use crate::rebuild::fill_hot;
use crate::retry::until_done;
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

    /// Does the rest of an exchange that a crash cut short; before the source's pipeline begins. Answers whether there was
    /// one.
    ///
    /// # Errors
    /// When a store cannot be read or written.
    pub async fn finish(&self) -> Result<bool> {
        let source = self.recipe.schema.source;
        match self.cold.draft(source).await? {
            Some(draft) if draft.is_exchanged => {
                self.follow(&draft).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The draft of what is wanted: the one that was begun, or a new one.
    ///
    /// # Errors
    /// `Change` when it cannot be; else as above.
    pub async fn begin(&self, wanted: &Wanted) -> Result<Draft> {
        let source = self.recipe.schema.source;
        let doing = || format!("make `silver.{source}` anew");
        let Wanted::Anew(of) = wanted else { return self.begin_previous(wanted).await };
        if of.since.is_some() && self.cold.is_of_other_columns(source) {
            return Err(Error::change(format!(
                "{}: its columns change, so all rows have to; leave out `--since`",
                doing()
            )));
        }
        if let Some(draft) = self.cold.draft(source).await?
            && draft.of == *of
        {
            return Ok(draft);
        }
        self.hot.end_draft(source).await?;
        self.cold.begin_draft(source, of).await
    }

    async fn begin_previous(&self, wanted: &Wanted) -> Result<Draft> {
        let source = self.recipe.schema.source;
        let (Wanted::Previous { made_by } | Wanted::Anew(DraftOf { made_by, .. })) = wanted;
        let made_by = format!("{made_by}, of what was before");
        if let Some(draft) = self.cold.draft(source).await?
            && draft.of.made_by == made_by
        {
            return Ok(draft);
        }
        self.hot.end_draft(source).await?;
        self.cold.begin_draft_of_previous(source, &made_by).await
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
        let (source, troubles) = (self.recipe.schema.source, &self.engines.troubles);
        let until = self.cold.committed(source).await?;
        let mut bronze = Bronze::new(source, draft.of.since, draft.store.committed(source).await?, until.clone());
        let mut known = KnownIds::new(self.recipe.schema, limits::KNOWN_IDS_BYTES_MAX);
        known.committed(bronze.at());
        let mut waiting = 0;
        let tell = |at: &Positions| progress.send_replace(Progress { done: offsets(at), all: offsets(&until) });
        while let Some((records, ranges)) = bronze.next(&self.engines).await? {
            if stop.is_cancelled() {
                return Ok(false);
            }
            known.prepare(&*draft.store, &records).await?;
            let rows = tokio::task::block_in_place(|| {
                let mut builder = RowsBuilder::new(self.recipe.schema);
                known.add_rows(&mut builder, self.recipe.processor, &records, |_| {});
                let rows = builder.finish(Span { source, ranges });
                // Bronze is there already.
                contract::Rows { bronze: arrow::record_batch::RecordBatch::new_empty(bronze_schema()), ..rows }
            });
            until_done(&self.what(), troubles, stop, || draft.store.write(&rows)).await?;
            waiting += rows.memory_bytes();
            if waiting >= self.commit_bytes_max {
                known.committed(&until_done(&self.what(), troubles, stop, || draft.store.commit(source)).await?);
                waiting = 0;
            }
            tell(bronze.at());
        }
        until_done(&self.what(), troubles, stop, || draft.store.commit(source)).await?;
        tell(bronze.at());
        Ok(!stop.is_cancelled())
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
        fill_hot(&engines, self.recipe, &missing, &filled, stop).await?;
        Ok(!stop.is_cancelled())
    }

    /// What the draft changes, up to where it stands.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub async fn compare(&self, draft: &Draft, examples_max: usize) -> Result<Difference> {
        difference::between(self, draft, examples_max).await
    }

    /// Puts the draft in the place of silver and of the hot store's rows. The source's pipeline pauses, and both drafts stand
    /// where silver does.
    ///
    /// # Errors
    /// When a store cannot be read or written. After silver's commit the rest is done by [`Reprocess::finish`].
    pub async fn exchange(&self, draft: &Draft) -> Result<()> {
        let source = self.recipe.schema.source;
        let stop = CancellationToken::new();
        until_done(&self.what(), &self.engines.troubles, &stop, || self.cold.exchange(source)).await?;
        self.follow(draft).await
    }

    /// What comes after silver's commit.
    async fn follow(&self, draft: &Draft) -> Result<()> {
        let (source, stop) = (self.recipe.schema.source, CancellationToken::new());
        let (what, troubles) = (self.what(), &self.engines.troubles);
        until_done(&what, troubles, &stop, || self.cold.exchange(source)).await?;
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

fn offsets(at: &Positions) -> u64 {
    at.0.values().map(|next| next.unsigned_abs()).sum()
}
