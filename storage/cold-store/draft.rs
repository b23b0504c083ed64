//! Drafts of silver: rows made anew beside those in use. See [`contract::ColdDrafts`].
//!
//! | folder | holds |
//! | --- | --- |
//! | `draft/SOURCE/silver/SOURCE`, `draft/SOURCE/ops/dead_letters` | the logs of two Delta tables: the draft |
//! | `previous/NUMBER/SOURCE/…` | the same: what was there before that exchange; one that was not made counts for nothing |
//!
//! Their data files lie among those of the tables whose place the draft is to take (the vacuum knows them), so that an
//! exchange moves no file. A draft is a store like any other, so it knows its own offsets and goes on after a crash. An engine
//! of others that vacuums the table does not know them: Delta's own waits a week for files that no commit names.

use std::sync::Arc;

use async_trait::async_trait;
use contract::{ColdDrafts, Draft, DraftOf, Error, Held, Positions, Previous, Result, SourceId, Timestamp};
use deltalake::kernel::{Action, Add, LogicalFileView, Metadata, MetadataExt, StructType};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::DeltaStore;
use crate::access::Access;
use crate::layout::Layout;
use crate::marks::{Moves, prefix};
use crate::open::Parts;
use crate::place::{Place, failed};
use crate::store::{Inner, Written, finished};
use crate::table::{Commit, Outcome, Table};

/// The folder of drafts.
pub(crate) const DRAFT: &str = "draft";

/// The folder of what silver was.
const PREVIOUS: &str = "previous";

/// The folder of what silver was before an exchange.
pub(crate) fn previous(number: i64) -> String {
    format!("{PREVIOUS}/{number}")
}

/// Where the metadata of a draft's silver keeps its [`About`].
const ABOUT_KEY: &str = "databroker.draft";

/// What a draft says of itself; it is one once it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    #[serde(flatten)]
    pub(crate) of: DraftOf,
    /// Which exchange it is for, from 1; of a previous one, the exchange that ended it.
    pub(crate) number: i64,
    /// When it was begun; of a previous one, when it left its place.
    pub(crate) at: Timestamp,
}

/// A draft, or what silver was.
pub(crate) struct Beside {
    pub(crate) about: About,
    pub(crate) store: DeltaStore,
}

impl Inner {
    /// The folder of a source's drafts, or of its previous ones.
    pub(crate) fn folder_beside(&self, folder: &str, id: SourceId) -> Place {
        self.place.join(&format!("{folder}/{id}"))
    }

    /// What stands in such a folder, if it was begun; where it `writes`, with this version's columns.
    pub(crate) async fn open_beside(&self, folder: &str, id: SourceId, writes: bool) -> Result<Option<Beside>> {
        let silver = Layout::silver(self.source(id)?.schema, &self.place);
        let silver = Table::unopened(silver.with_log_below(&self.folder_beside(folder, id)));
        // Most often there is none, which is asked at every start.
        if !silver.is_there().await? {
            return Ok(None);
        }
        let found = self.store_beside(folder, id, writes).await?;
        let about = found.inner.source(id)?.silver.view().committed.configuration.get(ABOUT_KEY).cloned();
        let doing = || format!("read what `{}` says of itself", self.folder_beside(folder, id).shown(""));
        let Some(about) = about else { return Ok(None) };
        let about = serde_json::from_str(&about).map_err(|cause| Error::stop(doing()).because(cause))?;
        Ok(Some(Beside { about, store: found }))
    }

    async fn store_beside(&self, folder: &str, id: SourceId, writes: bool) -> Result<DeltaStore> {
        let schema = self.source(id)?.schema;
        let access = if writes { Access::Within } else { Access::Read };
        let (place, settings, clock) = (self.place.clone(), self.settings.clone(), self.clock.clone());
        DeltaStore::of(Parts {
            logs: Some(self.folder_beside(folder, id)),
            // What is only looked at may be another version's.
            remade: (!writes).then_some(id),
            engine: Some(self.engine.clone()),
            ..Parts::new(place, &[schema], settings, clock, access, self.spill.clone())
        })
        .await
    }

    /// Begins to fill such a folder, in the stead of what is there.
    pub(crate) async fn begin_beside(&self, folder: &str, id: SourceId, seed: Seed) -> Result<Beside> {
        self.check_writable()?;
        self.discard(&self.folder_beside(folder, id)).await?;
        let store = self.store_beside(folder, id, true).await?;
        let source = store.inner.source(id)?;
        // Silver last: with it what is there says of itself what it is.
        self.plant(&source.dead_letters, seed.dead_letters, None, Moves::none()).await?;
        let doing = || format!("begin `{}`", self.folder_beside(folder, id).shown(""));
        let about = serde_json::to_string(&seed.about).map_err(|cause| Error::stop(doing()).because(cause))?;
        let own = metadata_of(&source.silver).await?;
        let metadata = match seed.columns {
            Some(columns) => own.with_schema(&columns),
            None => Ok(own),
        };
        let metadata = metadata.and_then(|metadata| metadata.add_config_key(ABOUT_KEY.to_owned(), about));
        let metadata = metadata.map_err(|cause| Error::stop(doing()).because(cause))?;
        let moves = Moves::between(&prefix(&source.silver.layout.name, id), &Positions::default(), &seed.at);
        self.plant(&source.silver, seed.silver, Some(metadata), moves).await?;
        // The tables know by now what they hold.
        *store.inner.written() = [(id, Written::of(id, source))].into();
        Ok(Beside { about: seed.about, store })
    }

    async fn plant(&self, table: &Table, files: Vec<Add>, metadata: Option<Metadata>, moves: Moves) -> Result<()> {
        let actions = metadata.into_iter().map(Action::Metadata).chain(files.into_iter().map(Action::Add));
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let new = Commit::new(actions.collect(), operation, std::time::Instant::now(), self.now_ms());
        // The files are others' too.
        match table.commit(Commit { moves, owns_files: false, ..new }).await? {
            Outcome::Done => Ok(()),
            Outcome::Overtaken(reason) => {
                Err(Error::retry(format!("begin a draft of `{}`", table.layout.name)).because(reason))
            }
        }
    }

    /// Removes a folder with logs, the newest entry first: what is left after a crash is an older state of the same.
    pub(crate) async fn discard(&self, place: &Place) -> Result<()> {
        let doing = || format!("remove `{}`", place.shown(""));
        let files = place.store().list(Some(place.prefix())).map_ok(|file| file.location);
        let mut files: Vec<_> = files.try_collect().await.map_err(|error| failed(doing(), error))?;
        files.sort_unstable();
        for file in files.iter().rev() {
            match place.store().delete(file).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(doing(), error)),
            }
        }
        let Some(directory) = place.directory().filter(|directory| directory.is_dir()) else { return Ok(()) };
        std::fs::remove_dir_all(directory).map_err(|error| failed(doing(), error))?;
        // It stays where another source's is in it.
        directory.parent().map_or(Ok(()), std::fs::remove_dir).unwrap_or_default();
        Ok(())
    }

    /// The data files of a table that drafts and previous ones name.
    pub(crate) async fn named_beside(&self, table: &Table) -> Result<Vec<String>> {
        let name = table.layout.name.as_str();
        let is_own = |id: &&SourceId| name == "ops.dead_letters" || name.strip_prefix("silver.") == Some(id.0);
        let own: Vec<SourceId> = self.sources.keys().filter(is_own).copied().collect();
        let mut named = Vec::new();
        if own.is_empty() {
            return Ok(named);
        }
        let folders: Vec<String> = self.numbers().await?.into_iter().map(previous).chain([DRAFT.to_owned()]).collect();
        for id in own {
            for folder in &folders {
                let log = table.layout.as_ref().clone().with_log_below(&self.folder_beside(folder, id));
                let log = Layout { may_differ: true, ..log };
                let beside = Table::open_read_only(log, Vec::new()).await?;
                named.extend(beside.view().committed.files.iter().map(|file| file.relative.clone()));
            }
        }
        Ok(named)
    }

    /// The exchanges of which something is kept, of any source.
    async fn numbers(&self) -> Result<Vec<i64>> {
        let place = self.place.join(PREVIOUS);
        let listed = place.store().list_with_delimiter(Some(place.prefix())).await;
        let listed = listed.map_err(|error| failed(format!("list `{}`", place.shown("")), error))?;
        let name = |path: &deltalake::Path| path.filename()?.parse().ok();
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    /// Forgets what a source was before some exchanges.
    pub(crate) async fn forget_numbers(&self, id: SourceId, is_forgotten: impl Fn(i64) -> bool) -> Result<()> {
        for number in self.numbers().await?.into_iter().filter(|&number| is_forgotten(number)) {
            self.discard(&self.folder_beside(&previous(number), id)).await?;
        }
        Ok(())
    }

    /// Removes what silver was where it was kept long enough, and where its exchange was given up.
    pub(crate) async fn forget_previous(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if self.numbers().await?.is_empty() {
            return Ok(lines);
        }
        for (&id, source) in &self.sources {
            let previous = self.previous(id).await?;
            if previous.is_some_and(|previous| previous.kept_until <= self.clock.now()) {
                self.forget_numbers(id, |_| true).await?;
                lines.push(format!("what `silver.{id}` was before it was made anew is kept no longer"));
            }
            let made = self.exchanges(&source.silver, id);
            if self.open_beside(DRAFT, id, false).await?.is_none() {
                self.forget_numbers(id, |number| number > made).await?;
            }
        }
        Ok(lines)
    }

    /// What silver was before its last exchange, if that is kept.
    async fn before(&self, id: SourceId) -> Result<Option<Beside>> {
        let made = self.exchanges(&self.source(id)?.silver, id);
        if !self.numbers().await?.contains(&made) {
            return Ok(None);
        }
        self.open_beside(&previous(made), id, false).await
    }

    async fn previous(&self, id: SourceId) -> Result<Option<Previous>> {
        Ok(self.before(id).await?.map(|found| Previous {
            since: found.about.of.since,
            left_at: found.about.at,
            kept_until: found.about.at.plus(self.settings.previous_retention()),
        }))
    }

    async fn begin_draft(&self, id: SourceId, of: &DraftOf) -> Result<Beside> {
        let number = self.exchanges(&self.source(id)?.silver, id) + 1;
        let about = About { of: of.clone(), number, at: self.clock.now() };
        self.begin_beside(DRAFT, id, Seed::empty(about)).await
    }

    async fn begin_draft_of_previous(&self, id: SourceId, made_by: &str) -> Result<Beside> {
        let doing = || format!("go back to what `silver.{id}` was");
        let found = self.before(id).await?;
        let found = found.ok_or_else(|| Error::change(format!("{}: nothing is kept of it", doing())))?;
        let tables = found.store.inner.source(id)?;
        if tables.silver.is_of_other_columns() {
            return Err(Error::change(format!(
                "{}: it has other columns than this version writes; the version that made it can go back",
                doing()
            )));
        }
        let number = self.exchanges(&self.source(id)?.silver, id) + 1;
        let of = DraftOf { made_by: made_by.to_owned(), ..found.about.of };
        let seed = Seed {
            about: About { of, number, at: self.clock.now() },
            at: Written::of(id, tables).committed,
            silver: files_of(&tables.silver).await?,
            dead_letters: files_of(&tables.dead_letters).await?,
            columns: None,
        };
        self.begin_beside(DRAFT, id, seed).await
    }
}

/// What such a folder holds from the beginning.
pub(crate) struct Seed {
    pub(crate) about: About,
    pub(crate) at: Positions,
    pub(crate) silver: Vec<Add>,
    pub(crate) dead_letters: Vec<Add>,
    /// Silver's columns, where they are not this version's.
    pub(crate) columns: Option<StructType>,
}

impl Seed {
    fn empty(about: About) -> Self {
        Self { about, at: Positions::default(), silver: Vec::new(), dead_letters: Vec::new(), columns: None }
    }
}

/// The state of a table's log.
pub(crate) async fn state_of(table: &Table) -> Result<DeltaTableState> {
    let log = table.log().await;
    let missing = || Error::stop(format!("read the log of `{}`: it was not made", table.layout.name));
    log.map(|(_, state)| state).ok_or_else(missing)
}

async fn metadata_of(table: &Table) -> Result<Metadata> {
    Ok(state_of(table).await?.snapshot().metadata().clone())
}

/// What adds the files of a table to another one.
pub(crate) async fn files_of(table: &Table) -> Result<Vec<Add>> {
    let state = state_of(table).await?;
    let add = |file: LogicalFileView| Add {
        path: file.path().into_owned(),
        partition_values: file.partition_values_map(),
        size: file.size(),
        modification_time: file.modification_time(),
        data_change: true,
        stats: file.stats(),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    };
    Ok(state.log_data().iter().map(add).collect())
}

#[async_trait]
impl ColdDrafts for DeltaStore {
    fn is_of_other_columns(&self, source: SourceId) -> bool {
        self.inner.source(source).is_ok_and(|tables| tables.silver.is_of_other_columns())
    }

    async fn draft(&self, source: SourceId) -> Result<Option<Draft>> {
        let looked = self.inner.open_beside(DRAFT, source, false).await?;
        let Some(looked) = looked else { return Ok(None) };
        if looked.store.is_of_other_columns(source) || !self.inner.access.writes() {
            return Ok(Some(self.told(looked, source)?));
        }
        let opened = self.inner.open_beside(DRAFT, source, true).await?;
        opened.map(|opened| self.told(opened, source)).transpose()
    }

    async fn begin_draft(&self, source: SourceId, of: &DraftOf) -> Result<Draft> {
        let (inner, of) = (self.inner.clone(), of.clone());
        let begun = finished(tokio::spawn(async move { inner.begin_draft(source, &of).await })).await?;
        self.told(begun, source)
    }

    async fn begin_draft_of_previous(&self, source: SourceId, made_by: &str) -> Result<Draft> {
        let (inner, made_by) = (self.inner.clone(), made_by.to_owned());
        let begun = tokio::spawn(async move { inner.begin_draft_of_previous(source, &made_by).await });
        self.told(finished(begun).await?, source)
    }

    async fn previous(&self, source: SourceId) -> Result<Option<Previous>> {
        self.inner.previous(source).await
    }

    async fn other_columns(&self, source: SourceId) -> Result<Vec<String>> {
        Ok(self.inner.source(source)?.silver.other_columns().await)
    }

    async fn hold(&self) -> Held {
        Held::by(self.inner.maintenance.clone().lock_owned().await)
    }

    async fn exchange(&self, source: SourceId, held: &Held) -> Result<()> {
        let (inner, held) = (self.inner.clone(), held.clone());
        let exchanged = tokio::spawn(async move {
            let exchanged = inner.exchange(source).await;
            drop(held);
            exchanged
        });
        finished(exchanged).await
    }

    async fn end_draft(&self, source: SourceId) -> Result<()> {
        self.inner.check_writable()?;
        self.inner.discard(&self.inner.folder_beside(DRAFT, source)).await
    }
}

impl DeltaStore {
    fn told(&self, beside: Beside, source: SourceId) -> Result<Draft> {
        let number = self.inner.exchanges(&self.inner.source(source)?.silver, source);
        let is_exchanged = beside.about.number <= number;
        Ok(Draft { of: beside.about.of, store: Arc::new(beside.store), is_exchanged })
    }
}
