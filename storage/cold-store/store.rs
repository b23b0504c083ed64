//! The store: which tables there are, and what was written to them.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use contract::{
    Clock, ColdStore, ColdTable, Coverage, Day, Error, IdPlace, Offset, OffsetRange, Partition, Positions, Result,
    RowSchema, Rows, SourceId, Store, TableStream, drop_below,
};
use parquet::file::properties::WriterProperties;

use crate::Settings;
use crate::commit::COVERAGE_PREFIX;
use crate::data_file::writer_properties;
use crate::durable::create_directory;
use crate::layout::Layout;
use crate::query::Engine;
use crate::table::{Pending, Table, View};

/// How many times [`Settings::commit_bytes_max`] may wait before `write` asks for a commit first: the runtime
/// commits at once that, and a commit that takes long must not stop it.
const WAITING_COMMITS_MAX: usize = 4;

/// A cold store in a directory; see the crate's documentation for what it promises.
#[derive(Clone)]
pub struct DeltaStore {
    pub(crate) inner: Arc<Inner>,
}

/// A line of `databroker status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// `silver.github`.
    pub name: String,
    /// Its Delta version; none before it was made.
    pub version: Option<u64>,
    /// Committed data files.
    pub files: usize,
    /// Committed rows.
    pub rows: u64,
    /// Bytes of the committed data files.
    pub bytes: u64,
    /// Rows that wait for their commit.
    pub pending_rows: u64,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) properties: WriterProperties,
    pub(crate) sources: BTreeMap<SourceId, Source>,
    pub(crate) coverage: Arc<Table>,
    pub(crate) engine: Engine,
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    /// The next offset of the ledger; held by its commit.
    pub(crate) coverage_known: tokio::sync::Mutex<Positions>,
    dead_letters: Arc<Table>,
    /// What was written per source. Held while rows are given to the three tables, and while a query
    /// takes its view of all tables.
    written: Mutex<BTreeMap<SourceId, Written>>,
    /// Locked for as long as this process writes; none in a store that only reads.
    lock: Option<File>,
}

/// The tables of a source, in the order in which they are committed.
pub(crate) struct Source {
    pub(crate) bronze: Arc<Table>,
    pub(crate) dead_letters: Arc<Table>,
    pub(crate) silver: Arc<Table>,
    /// Held by the commit of the source.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// The next offsets of a source.
#[derive(Clone, Default)]
pub(crate) struct Written {
    /// Per table as in [`Source::tables`]: what it holds or was given.
    pub(crate) tables: [Positions; 3],
    /// What is committed.
    pub(crate) committed: Positions,
}

impl Source {
    /// The tables in the order of their commits: silver last.
    pub(crate) fn tables(&self) -> [&Arc<Table>; 3] {
        [&self.bronze, &self.dead_letters, &self.silver]
    }
}

impl Written {
    /// The next offsets of the span to come.
    pub(crate) fn next(&self) -> Positions {
        self.tables[0].min(&self.tables[1]).min(&self.tables[2])
    }
}

impl DeltaStore {
    /// Opens the store in a directory for writing, and makes what is not there.
    ///
    /// # Errors
    /// `Change` when another process writes to it, a setting is out of range, or a table was made with other
    /// columns; `Stop` when a table cannot be read.
    pub async fn open(
        directory: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let failed = |error| Error::stop(format!("open the cold store `{}`", directory.display())).because(error);
        create_directory(directory).map_err(failed)?;
        let directory = fs::canonicalize(directory).map_err(failed)?;
        let lock = lock(&directory.join("writer.lock"))?;
        let spill = directory.join("tmp");
        if spill.is_dir() {
            // What queries of a killed process spilled; no other process writes here, as we hold the lock.
            fs::remove_dir_all(&spill).map_err(failed)?;
        }
        create_directory(&spill).map_err(failed)?;
        Self::assemble(directory, schemas, settings, clock, Some(lock)).await
    }

    /// Opens the store in a directory for reading beside a process that writes. Each call reads what was
    /// committed until then; rows that are only written are not seen.
    ///
    /// # Errors
    /// As [`DeltaStore::open`].
    pub async fn open_read_only(
        directory: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let directory = std::path::absolute(directory)
            .map_err(|error| Error::change(format!("open the cold store `{}`", directory.display())).because(error))?;
        Self::assemble(directory, schemas, settings, clock, None).await
    }

    async fn assemble(
        directory: PathBuf,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Result<Self> {
        settings.check()?;
        let writable = lock.is_some();
        let open = async |layout: Layout| -> Result<Arc<Table>> {
            Ok(Arc::new(if writable { Table::open(layout).await? } else { Table::open_read_only(layout).await? }))
        };
        let dead_letters = open(Layout::dead_letters(&directory)).await?;
        let mut sources = BTreeMap::new();
        let mut written = BTreeMap::new();
        for schema in schemas {
            let source = Source {
                bronze: open(Layout::bronze(schema.source, &directory)).await?,
                dead_letters: dead_letters.clone(),
                silver: open(Layout::silver(schema, &directory)).await?,
                turn: tokio::sync::Mutex::new(()),
            };
            if writable {
                written.insert(schema.source, positions(schema.source, &source).await?);
            }
            sources.insert(schema.source, source);
        }
        let coverage = open(Layout::coverage(&directory)).await?;
        let coverage_known = coverage.positions(COVERAGE_PREFIX).await?;
        let inner = Inner {
            properties: writer_properties(&settings)?,
            // The directory for spilled rows is emptied by the next process that writes, so it is not a reader's.
            engine: Engine::new(writable.then(|| directory.join("tmp")), &settings)?,
            coverage,
            maintenance: tokio::sync::Mutex::new(()),
            coverage_known: tokio::sync::Mutex::new(coverage_known),
            written: Mutex::new(written),
            settings,
            clock,
            sources,
            dead_letters,
            lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The tables with their sizes, by name.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn tables(&self) -> Result<Vec<TableSummary>> {
        self.inner.refresh().await?;
        let summary = |table: &Arc<Table>| {
            let view = table.view().clone();
            let files = &view.committed.files;
            TableSummary {
                name: table.layout.name.clone(),
                version: view.committed.version,
                files: files.len(),
                rows: files.iter().filter_map(|file| file.rows).sum::<usize>() as u64,
                bytes: files.iter().map(|file| file.bytes).sum(),
                pending_rows: view.pending.iter().map(|pending| pending.rows.num_rows()).sum::<usize>() as u64,
            }
        };
        Ok(self.inner.tables().iter().map(summary).collect())
    }
}

impl Inner {
    /// All tables, by name.
    pub(crate) fn tables(&self) -> Vec<Arc<Table>> {
        let own = self.sources.values().flat_map(|source| [source.bronze.clone(), source.silver.clone()]);
        let mut tables: Vec<_> = own.chain([self.coverage.clone(), self.dead_letters.clone()]).collect();
        tables.sort_by(|one, other| one.layout.name.cmp(&other.layout.name));
        tables
    }

    pub(crate) fn source(&self, source: SourceId) -> Result<&Source> {
        let known = || self.sources.keys().map(|source| source.0).collect::<Vec<_>>().join(", ");
        let found = self.sources.get(&source);
        found.ok_or_else(|| Error::change(format!("open the tables of source `{source}` (known: {})", known())))
    }

    pub(crate) fn written(&self) -> MutexGuard<'_, BTreeMap<SourceId, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this store only reads.
    pub(crate) fn read_only(&self) -> bool {
        self.lock.is_none()
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only() {
            return Err(Error::change("write to the cold store: it is open for reading only"));
        }
        Ok(())
    }

    /// In a store that only reads: what others committed since.
    pub(crate) async fn refresh(&self) -> Result<()> {
        if self.read_only() {
            for table in self.tables() {
                table.refresh().await?;
            }
        }
        Ok(())
    }

    /// All tables as a query sees them.
    async fn at_one_moment(&self) -> Result<Vec<(Arc<Layout>, View)>> {
        self.refresh().await?;
        let _no_write_meanwhile = self.written();
        Ok(self.tables().into_iter().map(|table| (table.layout.clone(), table.view().clone())).collect())
    }

    fn write(&self, rows: &Rows) -> Result<()> {
        self.check_writable()?;
        let source = self.source(rows.span.source)?;
        let mut written = self.written();
        let written = written.entry(rows.span.source).or_default();
        if let Some(gap) = rows.span.gap_after(&written.next()) {
            let doing = format!("write rows of `{}` to the cold store", rows.span.source);
            return Err(Error::stop(format!(
                "{doing}: offsets {}..{} of partition {} would be missing",
                gap.from, gap.to, gap.partition
            )));
        }
        let waiting: usize = source.tables().iter().map(|table| table.view().bytes(rows.span.source)).sum();
        if waiting > WAITING_COMMITS_MAX.saturating_mul(self.settings.commit_bytes_max) {
            let doing = format!("write rows of `{}` to the cold store", rows.span.source);
            return Err(Error::retry(format!("{doing}: {waiting} bytes wait for a commit already")));
        }
        let batches = [&rows.bronze, &rows.dead_letters, &rows.silver];
        let mut arranged = Vec::with_capacity(batches.len());
        for ((table, batch), known) in source.tables().into_iter().zip(batches).zip(&written.tables) {
            arranged.push(table.layout.arrange(&drop_below(batch, known))?);
        }
        for ((table, rows_of_table), known) in source.tables().into_iter().zip(arranged).zip(&mut written.tables) {
            if rows_of_table.num_rows() > 0 {
                table.view().pending.push(Pending { source: rows.span.source, rows: rows_of_table });
            }
            rows.span.ranges.iter().for_each(|range| known.advance(range.partition, range.to));
        }
        Ok(())
    }
}

impl Inner {
    /// See [`Store::resume`].
    async fn resume(&self, id: SourceId, partitions: &[Partition]) -> Result<Positions> {
        self.check_writable()?;
        let source = self.source(id)?;
        let _turn = source.turn.lock().await;
        for table in source.tables() {
            table.refresh().await?;
        }
        let now = positions(id, source).await?;
        let mut written = self.written();
        let written = written.entry(id).or_default();
        for (table, (known, now)) in source.tables().into_iter().zip(written.tables.iter_mut().zip(&now.tables)) {
            table.view().forget(id, partitions);
            known.put(&now.only(partitions));
        }
        written.committed.put(&now.committed.only(partitions));
        Ok(now.committed.only(partitions))
    }
}

#[async_trait]
impl Store for DeltaStore {
    fn name(&self) -> &'static str {
        "cold"
    }

    async fn write(&self, rows: &Rows) -> Result<()> {
        self.inner.write(rows)
    }

    async fn commit(&self, source: SourceId) -> Result<Positions> {
        let inner = self.inner.clone();
        // As a task of its own: a caller that is cancelled must not leave a commit of which we do not know.
        finished(tokio::spawn(async move { inner.commit(source).await })).await
    }

    async fn committed(&self, source: SourceId) -> Result<Positions> {
        let tables = self.inner.source(source)?;
        if !self.inner.read_only() {
            return Ok(self.inner.written().get(&source).map(|written| written.committed.clone()).unwrap_or_default());
        }
        tables.silver.refresh().await?;
        tables.silver.positions(&prefix(&tables.silver, source)).await
    }

    async fn resume(&self, source: SourceId, partitions: &[Partition]) -> Result<Positions> {
        let (inner, partitions) = (self.inner.clone(), partitions.to_vec());
        finished(tokio::spawn(async move { inner.resume(source, &partitions).await })).await
    }
}

#[async_trait]
impl ColdStore for DeltaStore {
    async fn ids(&self, source: SourceId, day: Day) -> Result<TableStream> {
        self.inner.refresh().await?;
        Ok(crate::ids::ids(self.inner.source(source)?, day))
    }

    async fn find_ids(&self, source: SourceId, day: Day, ids: &[&str]) -> Result<Vec<IdPlace>> {
        self.inner.refresh().await?;
        crate::ids::find_ids(self.inner.source(source)?, day, ids).await
    }

    async fn rows_at(&self, source: SourceId, ranges: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>> {
        self.inner.refresh().await?;
        crate::ids::rows_at(self.inner.source(source)?, ranges).await
    }

    async fn sql(&self, query: &str) -> Result<TableStream> {
        let tables = self.inner.at_one_moment().await?;
        self.inner.engine.query(query, tables).await
    }

    async fn scan(&self, query: &str) -> Result<TableStream> {
        let tables = self.inner.at_one_moment().await?;
        self.inner.engine.scan(query, tables).await
    }

    async fn commit_coverage(&self, range: OffsetRange, lines: &[(Offset, Coverage)]) -> Result<()> {
        let (inner, lines) = (self.inner.clone(), lines.to_vec());
        finished(tokio::spawn(async move { inner.commit_coverage(range, &lines).await })).await
    }

    async fn coverage_committed(&self) -> Result<Positions> {
        if !self.inner.read_only() {
            return Ok(self.inner.coverage_known.lock().await.clone());
        }
        self.inner.coverage.refresh().await?;
        self.inner.coverage.positions(COVERAGE_PREFIX).await
    }

    async fn mend(
        &self,
        source: SourceId,
        table: ColdTable,
        remove: &[(Partition, Offset)],
        append: Option<&RecordBatch>,
    ) -> Result<()> {
        let (inner, append) = (self.inner.clone(), append.cloned());
        let remove = remove.iter().copied().collect();
        finished(tokio::spawn(async move { inner.mend(source, table, remove, append).await })).await
    }

    async fn maintain(&self) -> Result<Vec<String>> {
        let inner = self.inner.clone();
        finished(tokio::spawn(async move { inner.maintain().await })).await
    }
}

/// The start of the appIds of a source's `txn` actions in one of its tables.
pub(crate) fn prefix(table: &Table, source: SourceId) -> String {
    let name = &table.layout.name;
    match name.strip_prefix("ops.") {
        Some(_) => format!("databroker/{name}/{source}"),
        None => format!("databroker/{name}"),
    }
}

/// Awaits a task of ours; its panic becomes an error.
pub(crate) async fn finished<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|panic| Err(Error::stop("finish a task of the cold store").because(panic)))
}

async fn positions(id: SourceId, source: &Source) -> Result<Written> {
    let committed = source.silver.positions(&prefix(&source.silver, id)).await?;
    let mut tables = [committed.clone(), committed.clone(), committed.clone()];
    // Silver is committed last, so all of them hold what is below its position.
    for (table, known) in [&source.bronze, &source.dead_letters].into_iter().zip(&mut tables) {
        let own = table.positions(&prefix(table, id)).await?;
        own.0.into_iter().for_each(|(partition, next)| known.advance(partition, next));
    }
    Ok(Written { tables, committed })
}

fn lock(path: &Path) -> Result<File> {
    let failed = |error| Error::stop(format!("lock the cold store `{}`", path.display())).because(error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::change(format!(
            "lock the cold store `{}`: another process writes to it; stop that one, or open the store for reading",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
