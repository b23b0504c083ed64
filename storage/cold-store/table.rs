//! One Delta table: its log, the files that are committed, and the rows that wait for their commit.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use contract::{Error, Positions, Remedy, Result, SourceId};
use datafusion::common::{ScalarValue, Statistics};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, LogicalFileView, StructType};
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::DeltaOperation;
use deltalake::table::builder::parse_table_uri;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTableBuilder, DeltaTableError};

use crate::durable::{DurableStore, create_directory, is_full};
use crate::layout::{Layout, PartitionValue};
use crate::marks::{Marks, Moves};
use crate::{data_file, file_stats};

/// How often a commit is tried anew when another process was faster: each time that one has committed.
const ATTEMPTS_MAX: usize = 100;

/// How long after its files were begun a commit may be made. A vacuum takes files that no commit names only when they are
/// an hour old at least (`cold.vacuum_retention_hours`), so none that a commit of another process will name yet.
const FILES_AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// A Delta table.
pub(crate) struct Table {
    /// Its columns and place.
    pub(crate) layout: Arc<Layout>,
    /// The starts of the appIds of its `txn` actions.
    prefixes: Vec<String>,
    /// Held while a commit is made, so that commits of this process never meet each other.
    log: tokio::sync::Mutex<Option<TableLog>>,
    view: Mutex<View>,
}

/// The Delta log as last read.
pub(crate) struct TableLog {
    /// Where it is read and written.
    pub(crate) store: LogStoreRef,
    /// What it says.
    pub(crate) state: DeltaTableState,
    /// The next offsets in it.
    marks: Marks,
}

/// What a commit is to change.
pub(crate) struct Commit {
    /// Files that come and go.
    pub(crate) actions: Vec<Action>,
    /// Positions that move.
    pub(crate) moves: Moves,
    /// What it says that it is.
    pub(crate) operation: DeltaOperation,
    /// When its files were begun.
    pub(crate) begun: Instant,
    /// The time of its `txn` actions, in milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// What became of a commit.
#[must_use]
pub(crate) enum Outcome {
    /// It is made.
    Done,
    /// What it was made from is not so any more, for this reason: nothing is committed, and its files are gone.
    Overtaken(String),
}

/// What queries see: every row stands in one of both, and moves from the second to the first at once.
#[derive(Clone)]
pub(crate) struct View {
    /// The files of the last commit.
    pub(crate) committed: Arc<Committed>,
    /// The rows written since, oldest first.
    pub(crate) pending: Vec<Pending>,
}

/// Rows that wait for their commit.
#[derive(Clone)]
pub(crate) struct Pending {
    /// Whose commit they wait for.
    pub(crate) source: SourceId,
    /// The rows, arranged.
    pub(crate) rows: RecordBatch,
}

/// The table as of one version.
#[derive(Default)]
pub(crate) struct Committed {
    /// The table's id; empty before it was made.
    pub(crate) id: String,
    /// The version; none before the table was made.
    pub(crate) version: Option<u64>,
    /// Its files, oldest first.
    pub(crate) files: Vec<Arc<CommittedFile>>,
    /// The next offsets.
    pub(crate) marks: Marks,
    /// What the table's metadata says beside its columns.
    pub(crate) configuration: HashMap<String, String>,
}

/// A data file of the table.
pub(crate) struct CommittedFile {
    /// Its path below the table.
    pub(crate) relative: String,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    /// Its rows, if the log says.
    pub(crate) rows: Option<usize>,
    /// Its value of the partition column.
    pub(crate) value: PartitionValue,
    /// When it was written, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// What its rows are bounded by, per column of the table.
    pub(crate) bounds: Arc<Statistics>,
}

impl Table {
    /// Opens the table and makes it first if it is not there.
    pub(crate) async fn open(layout: Layout, prefixes: Vec<String>) -> Result<Self> {
        let table = Self::new(layout, prefixes);
        table.make().await?;
        Ok(table)
    }

    /// Makes the table if it is not there, and reads its log.
    pub(crate) async fn make(&self) -> Result<()> {
        let doing = || format!("open the table `{}`", self.layout.name);
        create_directory(&self.layout.root).map_err(|error| Error::stop(doing()).because(error))?;
        let store = self.log_store()?;
        if !store.is_delta_table_location().await.map_err(|error| failed(doing(), error))? {
            create(&self.layout, &store).await?;
        }
        self.refresh().await
    }

    /// Opens the table for reading; it may be made later.
    pub(crate) async fn open_read_only(layout: Layout, prefixes: Vec<String>) -> Result<Self> {
        let table = Self::new(layout, prefixes);
        table.refresh().await?;
        Ok(table)
    }

    fn new(layout: Layout, prefixes: Vec<String>) -> Self {
        let view = View { committed: Arc::default(), pending: Vec::new() };
        Self { layout: Arc::new(layout), prefixes, log: tokio::sync::Mutex::new(None), view: Mutex::new(view) }
    }

    /// Reads what was committed since, by whomever.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        match log.as_mut() {
            Some(known) => return self.catch_up(known).await,
            None if !self.layout.root.join("_delta_log").is_dir() => return Ok(()),
            None => *log = Some(self.load().await?),
        }
        self.publish(log.as_ref().expect("set above"));
        Ok(())
    }

    async fn catch_up(&self, known: &mut TableLog) -> Result<()> {
        let before = known.state.version();
        if let Err(error) = known.update().await {
            // What was read before may be cleaned up by now; then only the whole log says.
            tracing::debug!(table = %self.layout.name, %error, "the log is read anew");
            *known = self.load().await?;
        }
        if known.state.version() != before {
            self.check_columns(&known.state)?;
            self.publish(known);
        }
        Ok(())
    }

    /// Reads the log anew, from its last checkpoint: what was read before may be cleaned up.
    pub(crate) async fn reload(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        *log = Some(self.load().await?);
        self.publish(log.as_ref().expect("set above"));
        Ok(())
    }

    async fn load(&self) -> Result<TableLog> {
        let store = self.log_store()?;
        let failed = |error| failed(format!("read the log of the table `{}`", self.layout.name), error);
        let state = DeltaTableState::try_new(store.as_ref(), None).await.map_err(failed)?;
        self.check_columns(&state)?;
        let marks = Marks::read(store.as_ref(), &state, &self.prefixes).await.map_err(failed)?;
        Ok(TableLog { store, state, marks })
    }

    /// What queries see.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log store and the state of the log, for maintenance; none before the table was made.
    pub(crate) async fn log(&self) -> Option<(LogStoreRef, DeltaTableState)> {
        let log = self.log.lock().await;
        log.as_ref().map(|log| (log.store.clone(), log.state.clone()))
    }

    /// The next offsets of a source, or of the ledger, as of the last commit that is known.
    pub(crate) fn positions(&self, prefix: &str) -> Positions {
        self.view().committed.marks.of(prefix)
    }

    /// Makes one commit, if what it was made from is still so.
    ///
    /// # Errors
    /// `Retry` when the disk is full, `Stop` when it failed; nothing is committed then. After a `Retry` the files that the
    /// commit adds are gone, since they are written anew with the next try and their space may be what is wanted.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let outcome = self.try_commit(&commit).await;
        let is_in_vain = match &outcome {
            Ok(Outcome::Done) => false,
            Ok(Outcome::Overtaken(_)) => true,
            Err(error) => error.remedy() == Remedy::Retry,
        };
        if is_in_vain {
            let added = commit.actions.into_iter().filter_map(|action| match action {
                Action::Add(add) => Some(add),
                _ => None,
            });
            data_file::discard(&self.layout, &added.collect::<Vec<_>>());
        }
        outcome
    }

    async fn try_commit(&self, commit: &Commit) -> Result<Outcome> {
        let doing = || format!("commit to `{}`", self.layout.name);
        let mut log = self.log.lock().await;
        let Some(known) = log.as_mut() else {
            return Err(Error::stop(format!("{}: it is open for reading only", doing())));
        };
        for _ in 0..ATTEMPTS_MAX {
            if let Some(reason) = self.overtaken(commit, &known.marks) {
                return Ok(Outcome::Overtaken(reason));
            }
            match known.append(commit).await {
                Ok(()) => {
                    self.publish(known);
                    return Ok(Outcome::Done);
                }
                Err(error) if is_race(&error) => self.catch_up(known).await?,
                Err(error) => return Err(failed(doing(), error)),
            }
        }
        Err(Error::retry(format!("{}: others were faster {ATTEMPTS_MAX} times", doing())))
    }

    /// Why a commit cannot be made as it is.
    fn overtaken(&self, commit: &Commit, now: &Marks) -> Option<String> {
        if let Some(partition) = commit.moves.overtaken(now) {
            return Some(format!("another process moved partition {partition} of `{}`", self.layout.name));
        }
        if let Some(gone) = self.view().committed.missing(&commit.actions) {
            // Another process or engine compacted or deleted it since the rows were read.
            return Some(format!("`{gone}` is no part of `{}` any more", self.layout.name));
        }
        let is_late = commit.begun.elapsed() > FILES_AGE_MAX;
        is_late.then(|| format!("the files for `{}` waited too long, a vacuum may have taken them", self.layout.name))
    }

    fn publish(&self, log: &TableLog) {
        let before = self.view().committed.clone();
        let known: HashMap<&str, &Arc<CommittedFile>> =
            before.files.iter().map(|file| (file.relative.as_str(), file)).collect();
        let mut files: Vec<_> = (log.state.log_data().iter())
            .map(|file| match known.get(file.path().as_ref()) {
                Some(known) => Arc::clone(known),
                None => Arc::new(self.committed_file(&file)),
            })
            .collect();
        files.sort_by(|one, other| (one.modified_ms, &one.relative).cmp(&(other.modified_ms, &other.relative)));
        let (version, marks) = (Some(log.state.version()), log.marks.clone());
        let metadata = log.state.snapshot().metadata();
        let (id, configuration) = (metadata.id().to_owned(), metadata.configuration().clone());
        let mut view = self.view();
        view.committed = Arc::new(Committed { id, version, files, marks, configuration });
        view.settle(&self.layout.name);
    }

    fn committed_file(&self, file: &LogicalFileView) -> CommittedFile {
        let relative = file.path().into_owned();
        let layout = &self.layout;
        let values = file.partition_values_map();
        let text = layout.partition_field().and_then(|field| values.get(field.name())).and_then(Option::as_deref);
        let value = layout.partition_value(text).unwrap_or(PartitionValue::Whole);
        let rows = file.num_records();
        let mut bounds = file_stats::parse(file.stats().as_deref(), &layout.schema, rows);
        if let (Some(scalar), Some(column)) =
            (value.scalar(), bounds.column_statistics.get_mut(layout.files.fields().len()))
        {
            use datafusion::common::stats::Precision::Exact;
            (column.min_value, column.max_value) = (Exact(scalar.clone()), Exact(scalar));
            column.null_count = Exact(0);
        }
        CommittedFile {
            path: layout.root.join(&relative),
            relative,
            bytes: u64::try_from(file.size()).unwrap_or(0),
            rows,
            value,
            modified_ms: file.modification_time(),
            bounds: Arc::new(bounds),
        }
    }

    fn log_store(&self) -> Result<LogStoreRef> {
        let doing = || format!("open the table `{}`", self.layout.name);
        let path =
            self.layout.root.to_str().ok_or_else(|| Error::change(format!("{}: its path is not UTF-8", doing())))?;
        let url = parse_table_uri(path).map_err(|error| failed(doing(), error))?;
        DeltaTableBuilder::from_url(url.clone())
            .map(|builder| builder.with_storage_backend(Arc::new(DurableStore::default()), url))
            .and_then(|builder| builder.build_storage())
            .map_err(|error| failed(doing(), error))
    }

    fn check_columns(&self, state: &DeltaTableState) -> Result<()> {
        if self.layout.is_derived {
            return Ok(());
        }
        let found = state.snapshot().arrow_schema();
        let (found, wanted) = (found.fields(), self.layout.schema.fields());
        let differs = wanted.iter().find(|field| {
            !found.iter().any(|other| other.name() == field.name() && other.data_type() == field.data_type())
        });
        match differs {
            Some(field) => Err(Error::change(format!(
                "open the table `{}`: it has no column `{}` of type {}; it was made by another version",
                self.layout.name,
                field.name(),
                field.data_type()
            ))),
            None => Ok(()),
        }
    }
}

impl TableLog {
    /// Reads the commits that came since.
    async fn update(&mut self) -> Result<(), DeltaTableError> {
        let before = self.state.version();
        self.state.update(self.store.as_ref(), None).await?;
        self.marks.follow(self.store.as_ref(), before, self.state.version()).await
    }

    /// Puts a commit behind the last one that is known; an error if there is another by now.
    async fn append(&mut self, commit: &Commit) -> Result<(), DeltaTableError> {
        let transactions = commit.moves.transactions(commit.now_ms);
        // Checkpoints and cleaning are the maintenance's, so that a commit takes the same time always. What others commit
        // meanwhile is judged by `overtaken`: delta-rs would refuse more, and say so in the log as an error.
        let properties = CommitProperties::default()
            .with_application_transactions(transactions.clone())
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_max_retries(0);
        let builder = CommitBuilder::from(properties).with_actions(commit.actions.clone());
        let made = builder.build(Some(&self.state), self.store.clone(), commit.operation.clone()).await?;
        self.state = made.snapshot();
        transactions.iter().for_each(|transaction| self.marks.take(transaction));
        Ok(())
    }
}

impl Committed {
    /// The first file that `actions` remove and that is not there.
    fn missing<'a>(&self, actions: &'a [Action]) -> Option<&'a str> {
        let removed = actions.iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove.path.as_str()),
            _ => None,
        });
        let mut removed = removed.peekable();
        removed.peek()?;
        let files: HashSet<&str> = self.files.iter().map(|file| file.relative.as_str()).collect();
        removed.find(|path| !files.contains(path))
    }
}

impl PartitionValue {
    /// The value as a column of the table has it; none when the table is not partitioned.
    pub(crate) fn scalar(&self) -> Option<ScalarValue> {
        match self {
            Self::Day(day) => Some(ScalarValue::Date32(Some(*day))),
            Self::Text(text) => Some(ScalarValue::Utf8(Some(text.clone()))),
            Self::Whole => None,
        }
    }
}

async fn create(layout: &Layout, store: &LogStoreRef) -> Result<()> {
    let doing = || format!("make the table `{}`", layout.name);
    let columns: StructType =
        (layout.schema.as_ref().try_into_kernel()).map_err(|error| Error::stop(doing()).because(error))?;
    let partition: Vec<String> = layout.partition_field().map(|field| field.name().clone()).into_iter().collect();
    let builder = CreateBuilder::new()
        .with_log_store(store.clone())
        .with_table_name(layout.name.clone())
        .with_columns(columns.fields().cloned())
        .with_partition_columns(partition);
    builder.await.map(|_| ()).map_err(|error| failed(doing(), error))
}

/// Whether another process committed the version that this one was about to.
fn is_race(error: &DeltaTableError) -> bool {
    matches!(error, DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) })
}

/// Chooses the remedy for an error of delta-rs.
pub(crate) fn failed(doing: String, error: DeltaTableError) -> Error {
    let is_busy = is_race(&error)
        || matches!(&error, DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) });
    let may_pass = is_busy || is_full(&error);
    if may_pass { Error::retry(doing).because(error) } else { Error::stop(doing).because(error) }
}
