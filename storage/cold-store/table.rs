//! One Delta table: its log, the files that are committed, and the rows that wait for their commit.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use contract::{Error, Positions, Remedy, Result, SourceId};
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, StructType};
use deltalake::logstore::{LogStoreRef, get_actions};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;

use crate::committed::Committed;
use crate::durable::{create_directory, unique_name};
use crate::layout::Layout;
use crate::marks::{Marks, Moves};
use crate::{columns, place};

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
    /// No other has it.
    pub(crate) id: String,
    /// Whether the files that come were written for it, so that they go where it is made in vain.
    pub(crate) owns_files: bool,
}

/// The member of a `commitInfo` that holds [`Commit::id`].
const COMMIT_ID: &str = "databrokerCommit";

impl Commit {
    /// A commit of files that come and go, which moves no position.
    pub(crate) fn new(actions: Vec<Action>, operation: DeltaOperation, begun: Instant, now_ms: i64) -> Self {
        Self { actions, moves: Moves::none(), operation, begun, now_ms, id: unique_name(), owns_files: true }
    }

    /// The paths of the files that come.
    fn added(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter_map(|action| match action {
            Action::Add(add) => Some(add.path.as_str()),
            _ => None,
        })
    }
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

impl Table {
    /// Opens the table and makes it first if it is not there.
    pub(crate) async fn open(layout: Layout, prefixes: Vec<String>) -> Result<Self> {
        let table = Self::new(layout, prefixes);
        table.make().await?;
        if let Some((store, state)) = table.log().await
            && !columns::differ(&table.layout, &state)
            && columns::grow(&table.layout, &store, &state).await?
        {
            table.refresh().await?;
        }
        Ok(table)
    }

    /// Whether it has other columns than its layout says.
    pub(crate) fn is_of_other_columns(&self) -> bool {
        self.view().committed.differs
    }

    /// The columns of the layout that it lacks, or has of another type.
    pub(crate) async fn other_columns(&self) -> Vec<String> {
        let Some((_, state)) = self.log().await else { return Vec::new() };
        let found = state.snapshot().arrow_schema();
        let is_same = |field: &&FieldRef| {
            found.field_with_name(field.name()).is_ok_and(|found| found.data_type() == field.data_type())
        };
        self.layout.files.fields().iter().filter(|field| !is_same(field)).map(|field| field.name().clone()).collect()
    }

    /// Makes the table if it is not there, and reads its log.
    pub(crate) async fn make(&self) -> Result<()> {
        let doing = || format!("open the table `{}`", self.layout.name);
        let log = &self.layout.log;
        if let Some(directory) = log.directory() {
            create_directory(directory).map_err(|error| Error::stop(doing()).because(error))?;
        }
        let store = log.log_store();
        if !self.is_there().await? {
            let made = create(&self.layout, &store).await;
            // In an object store another process may have made it meanwhile, or the answer was lost.
            if made.is_err() && !self.is_there().await? {
                made?;
            }
        }
        self.refresh().await
    }

    /// Opens the table for reading; it may be made later.
    pub(crate) async fn open_read_only(layout: Layout, prefixes: Vec<String>) -> Result<Self> {
        let table = Self::new(layout, prefixes);
        table.refresh().await?;
        Ok(table)
    }

    /// One of which only is asked whether it was made.
    pub(crate) fn unopened(layout: Layout) -> Self {
        Self::new(layout, Vec::new())
    }

    fn new(layout: Layout, prefixes: Vec<String>) -> Self {
        let view = View { committed: Arc::default(), pending: Vec::new() };
        Self { layout: Arc::new(layout), prefixes, log: tokio::sync::Mutex::new(None), view: Mutex::new(view) }
    }

    /// Reads what was committed since, by whomever.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        match log.as_mut() {
            Some(known) => return self.catch_up(known, None).await.map(drop),
            None if !self.is_there().await? => return Ok(()),
            None => *log = Some(self.load().await?),
        }
        self.publish(log.as_ref().expect("set above"));
        Ok(())
    }

    /// Whether it was made.
    pub(crate) async fn is_there(&self) -> Result<bool> {
        let found = self.layout.log.log_store().is_delta_table_location().await;
        found.map_err(|error| failed(format!("find the table `{}`", self.layout.name), error))
    }

    /// Reads what was committed since; answers whether one of it is `ours`.
    async fn catch_up(&self, known: &mut TableLog, ours: Option<&Commit>) -> Result<bool> {
        let before = known.state.version();
        let is_ours = match known.update(ours).await {
            Ok(is_ours) => is_ours,
            Err(error) => {
                // What was read before may be cleaned up by now; then only the whole log says.
                tracing::debug!(table = %self.layout.name, %error, "the log is read anew");
                *known = self.load().await?;
                ours.is_some_and(|commit| known.has_file_of(commit))
            }
        };
        if known.state.version() != before {
            columns::missing(&self.layout, &known.state)?;
            self.publish(known);
        }
        Ok(is_ours)
    }

    /// Reads the log anew, from its last checkpoint: what was read before may be cleaned up.
    pub(crate) async fn reload(&self) -> Result<()> {
        let mut log = self.log.lock().await;
        *log = Some(self.load().await?);
        self.publish(log.as_ref().expect("set above"));
        Ok(())
    }

    async fn load(&self) -> Result<TableLog> {
        let store = self.layout.log.log_store();
        let failed = |error| failed(format!("read the log of the table `{}`", self.layout.name), error);
        let state = DeltaTableState::try_new(store.as_ref(), None).await.map_err(failed)?;
        columns::missing(&self.layout, &state)?;
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
    /// On this disk `Retry` when it is full, `Stop` when it failed; nothing is committed then. After a `Retry` the files that
    /// the commit adds are gone, since they are written anew with the next try and their space may be what is wanted.
    ///
    /// In an object store `Retry` when a request failed. Its answer alone may have been lost, or it may be done yet: then the
    /// commit is there, or will be, unless another one takes its version. So its files stay, and the caller begins with what
    /// the log says by then. A vacuum takes them if no commit names them.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let outcome = self.try_commit(&commit).await;
        let is_in_vain = match &outcome {
            Ok(Outcome::Done) => false,
            Ok(Outcome::Overtaken(_)) => true,
            Err(error) => error.remedy() == Remedy::Retry && self.layout.place.is_on_disk(),
        };
        if is_in_vain && commit.owns_files {
            for path in commit.added() {
                self.layout.place.remove(path).await;
            }
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
                Err(error) => {
                    let (is_race, failed) = (is_race(&error), failed(doing(), error));
                    let may_be_there = is_race || failed.remedy() == Remedy::Retry && !self.layout.place.is_on_disk();
                    // A version that is taken may be taken by this very commit, whose answer was lost on the way.
                    if may_be_there && self.catch_up(known, Some(commit)).await? {
                        return Ok(Outcome::Done);
                    }
                    if !is_race {
                        return Err(failed);
                    }
                }
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
        let committed = Committed::read(&self.layout, &log.state, log.marks.clone(), &before);
        let mut view = self.view();
        view.committed = Arc::new(committed);
        view.settle(&self.layout.name);
    }
}

impl TableLog {
    /// Reads the commits that came since; answers whether one of them is `ours`.
    async fn update(&mut self, ours: Option<&Commit>) -> Result<bool, DeltaTableError> {
        // Both go on together, or neither: marks that were behind would let rows in twice.
        let (mut state, mut marks, mut is_ours) = (self.state.clone(), self.marks.clone(), false);
        state.update(self.store.as_ref(), None).await?;
        for version in self.state.version() + 1..=state.version() {
            let entry = self.store.read_commit_entry(version).await?;
            let entry = entry.ok_or(DeltaTableError::InvalidVersion(version))?;
            for action in get_actions(version, &entry)? {
                match &action {
                    Action::Txn(transaction) => marks.take(transaction),
                    Action::CommitInfo(info) => {
                        let id = info.info.get(COMMIT_ID).and_then(|id| id.as_str());
                        is_ours |= id.is_some_and(|id| ours.is_some_and(|ours| ours.id == id));
                    }
                    _ => {}
                }
            }
        }
        (self.state, self.marks) = (state, marks);
        Ok(is_ours)
    }

    /// Whether the table holds a file that only this commit can have added.
    fn has_file_of(&self, commit: &Commit) -> bool {
        let added: HashSet<&str> = commit.added().collect();
        self.state.log_data().iter().any(|file| added.contains(file.path().as_ref()))
    }

    /// Puts a commit behind the last one that is known; an error if there is another by now.
    async fn append(&mut self, commit: &Commit) -> Result<(), DeltaTableError> {
        let transactions = commit.moves.transactions(commit.now_ms);
        // Checkpoints and cleaning are the maintenance's, so that a commit takes the same time always. What others commit
        // meanwhile is judged by `overtaken`: delta-rs would refuse more, and say so in the log as an error.
        let properties = CommitProperties::default()
            .with_application_transactions(transactions.clone())
            .with_metadata([(COMMIT_ID.to_owned(), commit.id.clone().into())])
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
    if is_busy { Error::retry(doing).because(error) } else { place::failed(doing, error) }
}
