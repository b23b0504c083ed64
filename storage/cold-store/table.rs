//! One Delta table: its log, the files that are committed, and the rows that wait for their commit.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use contract::{Error, Offset, Partition, Positions, Remedy, Result, SourceId};
use datafusion::common::{ScalarValue, Statistics};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitConflictError, CommitProperties, TransactionError};
use deltalake::kernel::{Action, LogicalFileView, StructType, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::DeltaOperation;
use deltalake::table::builder::parse_table_uri;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTableBuilder, DeltaTableError};

use crate::durable::{DurableStore, create_directory, is_full};
use crate::layout::{Layout, PartitionValue};
use crate::{data_file, file_stats};

/// Partitions whose position a table is asked for at the most: far above what a topic has.
const PARTITIONS_MAX: Partition = 100_000;

/// A Delta table.
pub(crate) struct Table {
    /// Its columns and place.
    pub(crate) layout: Arc<Layout>,
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
    /// The version; none before the table was made.
    pub(crate) version: Option<u64>,
    /// Its files, oldest first.
    pub(crate) files: Vec<Arc<CommittedFile>>,
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
    pub(crate) async fn open(layout: Layout) -> Result<Self> {
        let doing = || format!("open the table `{}`", layout.name);
        create_directory(&layout.root).map_err(|error| Error::stop(doing()).because(error))?;
        let table = Self::new(layout.clone());
        let store = table.log_store()?;
        if !store.is_delta_table_location().await.map_err(|error| failed(doing(), error))? {
            create(&layout, &store).await?;
        }
        table.refresh().await?;
        Ok(table)
    }

    /// Opens the table for reading; it may be made later.
    pub(crate) async fn open_read_only(layout: Layout) -> Result<Self> {
        let table = Self::new(layout);
        table.refresh().await?;
        Ok(table)
    }

    fn new(layout: Layout) -> Self {
        let view = View { committed: Arc::default(), pending: Vec::new() };
        Self { layout: Arc::new(layout), log: tokio::sync::Mutex::new(None), view: Mutex::new(view) }
    }

    /// Reads what was committed since, by whomever.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        match log.as_mut() {
            Some(known) => {
                // What was read before may be cleaned up by now; then only the whole log says.
                if let Err(error) = known.state.update(known.store.as_ref(), None).await {
                    tracing::debug!(table = %self.layout.name, %error, "the log is read anew");
                    *known = self.load().await?;
                }
            }
            None if !self.layout.root.join("_delta_log").is_dir() => return Ok(()),
            None => *log = Some(self.load().await?),
        }
        self.publish(log.as_ref().expect("set above"), |_| {});
        Ok(())
    }

    /// Reads the log anew, from its last checkpoint: what was read before may be cleaned up.
    pub(crate) async fn reload(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        *log = Some(self.load().await?);
        self.publish(log.as_ref().expect("set above"), |_| {});
        Ok(())
    }

    async fn load(&self) -> Result<TableLog> {
        let store = self.log_store()?;
        let state = DeltaTableState::try_new(store.as_ref(), None).await;
        let state =
            state.map_err(|error| failed(format!("read the log of the table `{}`", self.layout.name), error))?;
        self.check_columns(&state)?;
        Ok(TableLog { store, state })
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

    /// The next offsets that the log holds in `txn` actions `PREFIX/0`, `PREFIX/1`, and so on to the first
    /// that is not there: a commit names all partitions up to its highest.
    pub(crate) async fn positions(&self, prefix: &str) -> Result<Positions> {
        let mut positions = Positions::default();
        let Some((store, state)) = self.log().await else { return Ok(positions) };
        for partition in 0..PARTITIONS_MAX {
            let version = state.transaction_version(store.as_ref(), format!("{prefix}/{partition}")).await;
            let doing = || format!("read the positions of the table `{}`", self.layout.name);
            match version.map_err(|error| failed(doing(), error))? {
                Some(next) => positions.advance(partition, next),
                None => break,
            }
        }
        Ok(positions)
    }

    /// Makes one commit; `settle` changes what waits at the same moment as the files are seen.
    ///
    /// # Errors
    /// `Retry` when the disk is full, `Stop` when it failed or another process writes the same positions; nothing is
    /// committed then. After a `Retry` the files that `actions` add are gone, since they are written anew with the next
    /// try and their space may be what is wanted.
    pub(crate) async fn commit(
        &self,
        actions: Vec<Action>,
        transactions: Vec<Transaction>,
        operation: DeltaOperation,
        settle: impl FnOnce(&mut View) + Send,
    ) -> Result<()> {
        let added = actions.iter().filter_map(|action| match action {
            Action::Add(add) => Some(add.clone()),
            _ => None,
        });
        let added: Vec<_> = added.collect();
        let committed = self.try_commit(actions, transactions, operation, settle).await;
        if committed.as_ref().is_err_and(|error| error.remedy() == Remedy::Retry) {
            data_file::discard(&self.layout, &added);
        }
        committed
    }

    async fn try_commit(
        &self,
        actions: Vec<Action>,
        transactions: Vec<Transaction>,
        operation: DeltaOperation,
        settle: impl FnOnce(&mut View) + Send,
    ) -> Result<()> {
        let mut log = self.log.lock().await;
        let Some(known) = log.as_mut() else {
            return Err(Error::stop(format!("commit to `{}`: it is open for reading only", self.layout.name)));
        };
        if let Some(gone) = self.view().committed.missing(&actions) {
            // Another engine compacted or deleted it since the rows were read.
            return Err(Error::retry(format!("commit to `{}`: `{gone}` is no part of it any more", self.layout.name)));
        }
        // Checkpoints and cleaning are the maintenance's, so that a commit takes the same time always.
        let properties = CommitProperties::default()
            .with_application_transactions(transactions)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        let commit = CommitBuilder::from(properties).with_actions(actions);
        let finished = commit.build(Some(&known.state), known.store.clone(), operation).await;
        let finished = finished.map_err(|error| failed(format!("commit to `{}`", self.layout.name), error))?;
        known.state = finished.snapshot();
        self.publish(known, settle);
        Ok(())
    }

    fn publish(&self, log: &TableLog, settle: impl FnOnce(&mut View)) {
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
        let mut view = self.view();
        view.committed = Arc::new(Committed { version: Some(log.state.version()), files });
        settle(&mut view);
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

/// The `txn` actions for all partitions up to the highest.
pub(crate) fn transactions(prefix: &str, next: &Positions, now_ms: i64) -> Vec<Transaction> {
    let end = next.0.last_key_value().map_or(0, |(&partition, _)| partition + 1);
    let transaction = |(partition, offset): (Partition, Offset)| {
        Transaction::new_with_last_update(format!("{prefix}/{partition}"), offset, Some(now_ms))
    };
    (0..end).map(|partition| transaction((partition, next.of(partition)))).collect()
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

/// Chooses the remedy for an error of delta-rs.
pub(crate) fn failed(doing: String, error: DeltaTableError) -> Error {
    let zombie = matches!(
        &error,
        DeltaTableError::Transaction {
            source: TransactionError::CommitConflict(CommitConflictError::ConcurrentTransaction)
        }
    );
    let busy = matches!(
        &error,
        DeltaTableError::Transaction {
            source: TransactionError::MaxCommitAttempts(_) | TransactionError::CommitConflict(_)
        }
    );
    if zombie {
        return Error::stop(format!("{doing}: another process commits the same rows"));
    }
    let may_pass = busy || is_full(&error);
    if may_pass { Error::retry(doing).because(error) } else { Error::stop(doing).because(error) }
}
