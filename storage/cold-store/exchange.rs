//! The exchange: a draft takes the place of silver and of the source's dead letters. See [`contract::ColdDrafts::exchange`].
//!
//! Each table is one commit, which removes its files and adds the draft's; with it goes a `txn` (appId
//! `databroker/exchanges/SOURCE/0`) that counts the exchanges, and so tells what is done already.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use contract::{Error, Positions, Result, SourceId, Timestamp};
use deltalake::kernel::{Action, Add, MetadataExt};
use deltalake::protocol::{DeltaOperation, SaveMode};

use crate::committed::CommittedFile;
use crate::draft::{About, DRAFT, Seed, files_of, previous, state_of};
use crate::layout::PartitionValue;
use crate::marks::Moves;
use crate::rewrite::remove_action;
use crate::store::{Inner, Source, Written, finished};
use crate::table::{Commit, Outcome, Table};

/// The start of the appId that counts a source's exchanges.
pub(crate) fn exchanges(id: SourceId) -> String {
    format!("databroker/exchanges/{id}")
}

/// A file or its rows lie on one side of a moment, or on both.
enum Side {
    Before,
    Since,
    Both,
}

impl Inner {
    /// How many exchanges a table has seen.
    pub(crate) fn exchanges(&self, table: &Table, id: SourceId) -> i64 {
        table.positions(&exchanges(id)).of(0)
    }

    /// See [`contract::ColdDrafts::exchange`].
    pub(crate) async fn exchange(&self, id: SourceId) -> Result<()> {
        self.check_writable()?;
        let source = self.source(id)?;
        // Commits change the same files, as maintenance does, which the caller holds.
        let _turn = source.turn.lock().await;
        self.refresh().await?;
        let draft = self.open_beside(DRAFT, id, true).await?;
        let draft = draft.ok_or_else(|| Error::change(format!("exchange `silver.{id}`: there is no draft of it")))?;
        let (number, tables) = (draft.about.number, draft.store.inner.source(id)?);
        if self.exchanges(&source.silver, id) < number {
            self.check_ends(source, tables, id)?;
            self.keep(source, id, &draft.about).await?;
            self.put(&source.silver, &tables.silver, id, &draft.about).await?;
        }
        if self.exchanges(&source.dead_letters, id) < number {
            self.put(&source.dead_letters, &tables.dead_letters, id, &draft.about).await?;
        }
        self.forget_numbers(id, |other| other < number).await
    }

    /// Both end at the same offsets, and nothing waits.
    fn check_ends(&self, source: &Source, draft: &Source, id: SourceId) -> Result<()> {
        let (now, ends) = (Written::of(id, source).committed, Written::of(id, draft).committed);
        let waits = source.tables().iter().any(|table| table.view().pending.iter().any(|pending| pending.source == id));
        if waits || !now.reaches(&ends) || !ends.reaches(&now) {
            return Err(Error::change(format!(
                "exchange `silver.{id}`: it went on while its draft was made; ask again, and it goes on from there"
            )));
        }
        Ok(())
    }

    /// Keeps what the tables hold as the previous one.
    async fn keep(&self, source: &Source, id: SourceId, about: &About) -> Result<()> {
        let since = about.of.since;
        let seed = Seed {
            about: About { at: self.clock.now(), ..about.clone() },
            at: Written::of(id, source).committed,
            silver: self.since(&source.silver, id, since).await?,
            dead_letters: self.since(&source.dead_letters, id, since).await?,
            columns: Some(state_of(&source.silver).await?.snapshot().schema().as_ref().clone()),
        };
        let folder = previous(about.number);
        self.begin_beside(&folder, id, seed).await.map(drop)
    }

    /// Puts a draft's table in the place of a source's part of `table`.
    async fn put(&self, table: &Table, from: &Table, id: SourceId, about: &About) -> Result<()> {
        let begun = Instant::now();
        let mut actions = Vec::new();
        for file in files(table, id) {
            match side(&file, about.of.since) {
                Side::Before => {}
                Side::Since => {
                    let remove = remove_action(&table.layout, &file, self.clock.now(), true);
                    actions.push(Action::Remove(remove));
                }
                Side::Both => actions.extend(self.split(table, &file, about.of.since, true).await?),
            }
        }
        actions.extend(files_of(from).await?.into_iter().map(Action::Add));
        let (old, new) = (state_of(table).await?, state_of(from).await?);
        if old.snapshot().schema() != new.snapshot().schema() {
            let metadata = old.snapshot().metadata().clone().with_schema(&new.snapshot().schema());
            let metadata =
                metadata.map_err(|cause| Error::stop(format!("exchange `{}`", table.layout.name)).because(cause))?;
            actions.push(Action::Metadata(metadata));
        }
        let (prefix, number) = (exchanges(id), Positions([(0, about.number)].into()));
        let moves = Moves::between(&prefix, &table.positions(&prefix), &number);
        let operation = DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None };
        let new = Commit::new(actions, operation, begun, self.now_ms());
        // The draft's files are the draft's still, if this is in vain.
        match table.commit(Commit { moves, owns_files: false, ..new }).await? {
            Outcome::Done => Ok(()),
            // Another process that finished the same.
            Outcome::Overtaken(_) if self.exchanges(table, id) >= about.number => Ok(()),
            Outcome::Overtaken(reason) => {
                Err(Error::retry(format!("exchange `{}`", table.layout.name)).because(reason))
            }
        }
    }

    /// A source's part of a table from a moment on, in files that hold no earlier rows.
    async fn since(&self, table: &Table, id: SourceId, since: Option<Timestamp>) -> Result<Vec<Add>> {
        let (mut whole, mut split) = (HashSet::new(), Vec::new());
        for file in files(table, id) {
            match side(&file, since) {
                Side::Before => {}
                Side::Since => drop(whole.insert(file.relative.clone())),
                Side::Both => split.extend(self.split(table, &file, since, false).await?),
            }
        }
        let mut adds = files_of(table).await?;
        adds.retain(|add| whole.contains(&add.path));
        adds.extend(split.into_iter().filter_map(|action| match action {
            Action::Add(add) => Some(add),
            _ => None,
        }));
        Ok(adds)
    }

    /// The actions that put those rows of a file in its place that lie before a moment, or from it on.
    async fn split(
        &self,
        table: &Table,
        file: &Arc<CommittedFile>,
        since: Option<Timestamp>,
        before: bool,
    ) -> Result<Vec<Action>> {
        let rewrite = self.rewrite(table, vec![file.clone()], u64::MAX, true);
        let since = since.unwrap_or_default();
        let run = move || rewrite.run(|batch| Some(times(batch, |time| (time < since) == before)));
        finished(tokio::task::spawn_blocking(run)).await
    }
}

/// A source's files of a table.
fn files(table: &Table, id: SourceId) -> Vec<Arc<CommittedFile>> {
    let own = |file: &&Arc<CommittedFile>| match &file.value {
        PartitionValue::Text(text) => *text == id.0,
        PartitionValue::Day(_) | PartitionValue::Whole => true,
    };
    table.view().committed.files.iter().filter(own).cloned().collect()
}

/// On which side of `since` a file lies, by its period.
fn side(file: &CommittedFile, since: Option<Timestamp>) -> Side {
    let Some(since) = since else { return Side::Since };
    match &file.value {
        PartitionValue::Day(day) if *day < since.day().0 => Side::Before,
        PartitionValue::Day(_) => Side::Since,
        // Dead letters of any time.
        PartitionValue::Text(_) | PartitionValue::Whole => Side::Both,
    }
}

fn times(batch: &RecordBatch, keep: impl Fn(Timestamp) -> bool) -> BooleanArray {
    let times = batch.column_by_name("event_time").map(|column| column.as_primitive::<TimestampMicrosecondType>());
    let times = times.expect("each row of silver, bronze and the dead letters has its time");
    times.values().iter().map(|&time| Some(keep(Timestamp(time)))).collect()
}
