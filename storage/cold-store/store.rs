//! The store: which tables there are, and what was written to them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use contract::{
    Clock, ColdStore, ColdTable, Coverage, Day, Error, IdPlace, Offset, OffsetRange, Partition, Positions, Result,
    RowSchema, Rows, SourceId, Store, TableStream, drop_below,
};
use parquet::file::properties::WriterProperties;

use crate::Settings;
use crate::access::Access;
use crate::commit::COVERAGE_PREFIX;
use crate::layout::Layout;
use crate::live::{Live, LiveTable};
use crate::marks::prefix;
use crate::place::Place;
use crate::query::Engine;
use crate::scan::Scan;
use crate::session::{Session, Tables};
use crate::table::{Pending, Table, View};
use crate::travel;
use crate::views::{Checked, Gold, GoldSchema};

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
    pub(crate) engine: Arc<Engine>,
    pub(crate) maintenance: Arc<tokio::sync::Mutex<()>>,
    /// Held by the commit of the ledger.
    pub(crate) coverage_turn: tokio::sync::Mutex<()>,
    pub(crate) dead_letters: Arc<Table>,
    /// How the runs of views went.
    pub(crate) runs: Arc<Table>,
    /// The tables of views that were opened, by view.
    pub(crate) gold: tokio::sync::Mutex<HashMap<String, Arc<Gold>>>,
    /// Views that were checked, or refused, by name.
    pub(crate) checked: tokio::sync::Mutex<Checked>,
    /// A folder of this process's own for what may vanish with it; none for one that reads.
    pub(crate) spill: Option<PathBuf>,
    /// What was written per source. Held while rows are given to the three tables, and while a query
    /// takes its view of all tables.
    pub(crate) written: Mutex<BTreeMap<SourceId, Written>>,
    /// Tables of others, see [`DeltaStore::show`].
    pub(crate) live: Mutex<Vec<Arc<dyn LiveTable>>>,
    /// Who has it.
    pub(crate) access: Access,
    /// Where it lies.
    pub(crate) place: Place,
}

/// The tables of a source, in the order in which they are committed.
pub(crate) struct Source {
    pub(crate) schema: &'static RowSchema,
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
    /// What silver holds or was given.
    pub(crate) fn silver(&self) -> &Positions {
        &self.tables[2]
    }

    /// What the tables hold, as far as their logs were read.
    pub(crate) fn of(id: SourceId, source: &Source) -> Self {
        let [bronze, dead_letters, committed] =
            source.tables().map(|table| table.positions(&prefix(&table.layout.name, id)));
        // Silver is committed last, so all of them hold what is below its position.
        Self { tables: [bronze.max(&committed), dead_letters.max(&committed), committed.clone()], committed }
    }

    /// The next offsets of the span to come.
    pub(crate) fn next(&self) -> Positions {
        self.tables[0].min(&self.tables[1]).min(&self.tables[2])
    }
}

impl DeltaStore {
    /// Begins to read all tables at this moment, within the limits of the settings.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn session(&self) -> Result<Session> {
        let moment = self.inner.at_one_moment().await?;
        let session = self.inner.engine.session(self.inner.readable(moment.clone()))?;
        travel::register(session.context(), &moment);
        let names = self.inner.sound_views().await?;
        session.with_views(Arc::new(GoldSchema { inner: self.inner.clone(), names }))
    }

    /// Lets queries read a table whose rows somebody else knows.
    pub fn show(&self, table: Arc<dyn LiveTable>) {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner).push(table);
    }

    /// Whether silver of any source has rows, as far as this process knows.
    pub fn has_rows(&self) -> bool {
        let has_rows = |source: &Source| {
            let view = source.silver.view();
            !view.committed.files.is_empty() || !view.pending.is_empty()
        };
        self.inner.sources.values().any(has_rows)
    }

    /// Where the tables lie: a folder's path, or the URL in an object store.
    pub fn location(&self) -> String {
        self.inner.place.shown("")
    }

    /// The tables with their sizes, by name.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn tables(&self) -> Result<Vec<TableSummary>> {
        self.inner.refresh().await?;
        let mut tables = self.inner.tables();
        tables.extend(self.inner.gold_tables().await);
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
        Ok(tables.iter().map(summary).collect())
    }
}

impl Inner {
    /// All tables, by name.
    pub(crate) fn tables(&self) -> Vec<Arc<Table>> {
        let own = self.sources.values().flat_map(|source| [source.bronze.clone(), source.silver.clone()]);
        let mut tables: Vec<_> =
            own.chain([self.coverage.clone(), self.dead_letters.clone(), self.runs.clone()]).collect();
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

    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.access.writes() {
            return Err(Error::change("write to the cold store: it is open for reading only"));
        }
        Ok(())
    }

    /// Whether others may write meanwhile: in an object store whoever has the credentials.
    pub(crate) fn has_others(&self) -> bool {
        self.access.has_others() || !self.place.is_on_disk()
    }

    /// Where others may write: what they committed since.
    pub(crate) async fn refresh(&self) -> Result<()> {
        if self.has_others() {
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

    /// Tables at one moment for a query, with those of others.
    fn readable(&self, moment: Vec<(Arc<Layout>, View)>) -> Tables {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let live = live.into_iter().map(|table| (table.name().to_owned(), Arc::new(Live(table)) as _));
        moment.into_iter().map(|(layout, view)| Scan::named(layout, view)).chain(live).collect()
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
            // Others may have moved a partition that this process still believes to be its own.
            let known = known.max(&table.positions(&prefix(&table.layout.name, rows.span.source)));
            arranged.push(table.layout.arrange(&drop_below(batch, &known))?);
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
        let now = Written::of(id, source);
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
        if self.inner.has_others() {
            tables.silver.refresh().await?;
        }
        Ok(Written::of(source, tables).committed)
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
        self.session().await?.query(query).await
    }

    async fn scan(&self, query: &str) -> Result<TableStream> {
        let tables = self.inner.readable(self.inner.at_one_moment().await?);
        self.inner.engine.scan(query, tables).await
    }

    async fn commit_coverage(&self, range: OffsetRange, lines: &[(Offset, Coverage)]) -> Result<()> {
        let (inner, lines) = (self.inner.clone(), lines.to_vec());
        finished(tokio::spawn(async move { inner.commit_coverage(range, &lines).await })).await
    }

    async fn coverage_committed(&self) -> Result<Positions> {
        if self.inner.has_others() {
            self.inner.coverage.refresh().await?;
        }
        Ok(self.inner.coverage.positions(COVERAGE_PREFIX))
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

/// Awaits a task of ours; its panic becomes an error.
pub(crate) async fn finished<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|panic| Err(Error::stop("finish a task of the cold store").because(panic)))
}
