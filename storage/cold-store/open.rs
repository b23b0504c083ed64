//! Opening the store: alone, beside others, or to read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use contract::{Clock, Result, RowSchema, SourceId};

use crate::access::Access;
use crate::commit::COVERAGE_PREFIX;
use crate::data_file::writer_properties;
use crate::exchange::exchanges;
use crate::folders::{folder, make, place, rooted};
use crate::layout::Layout;
use crate::marks::prefix;
use crate::place::Place;
use crate::query::Engine;
use crate::store::{Inner, Source, Written, finished};
use crate::table::Table;
use crate::{DeltaStore, Settings};

/// What a store is made of.
pub(crate) struct Parts<'a> {
    pub(crate) place: Place,
    /// Where the tables have their logs, if not where their files are: those of a draft. Of its tables only silver and the
    /// dead letters are made.
    pub(crate) logs: Option<Place>,
    pub(crate) schemas: &'a [&'static RowSchema],
    /// Its silver may have other columns, since it is to be made anew.
    pub(crate) remade: Option<SourceId>,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access: Access,
    pub(crate) spill: Option<PathBuf>,
    /// What answers queries; a new one when none.
    pub(crate) engine: Option<Arc<Engine>>,
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
        Self::open_alone(directory, schemas, settings, clock, None).await
    }

    /// The same, where `silver` of one source may have been made with other columns: it is about to be made anew, and takes
    /// no rows until then, see [`contract::ColdDrafts::is_of_other_columns`].
    ///
    /// # Errors
    /// As [`DeltaStore::open`].
    pub async fn open_to_remake(
        directory: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        source: SourceId,
    ) -> Result<Self> {
        Self::open_alone(directory, schemas, settings, clock, Some(source)).await
    }

    async fn open_alone(
        directory: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        remade: Option<SourceId>,
    ) -> Result<Self> {
        let settings = rooted(settings, directory);
        let directory = make(directory, &settings)?;
        let (access, spill) = Access::alone(&directory)?;
        let place = place(&directory, &settings, Some(spill.clone()))?;
        Self::of(Parts { remade, ..Parts::new(place, schemas, settings, clock, access, Some(spill)) }).await
    }

    /// Opens the store in a directory for writing beside other processes that open it so: each takes the rows of partitions
    /// of its own, see [`contract::Store::resume`]. Makes what is not there.
    ///
    /// # Errors
    /// As [`DeltaStore::open`]; `Change` also when a process writes alone.
    pub async fn open_shared(
        directory: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let settings = rooted(settings, directory);
        let directory = make(directory, &settings)?;
        let locks = directory.clone();
        let locked = finished(tokio::task::spawn_blocking(move || Access::shared(&locks))).await;
        let (access, spill, _turn) = locked?;
        let place = place(&directory, &settings, Some(spill.clone()))?;
        Self::assemble(place, schemas, settings, clock, access, Some(spill)).await
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
        let settings = rooted(settings, directory);
        let directory = folder(directory, &settings)?;
        let place = place(&directory, &settings, None)?;
        // The folder for spilled rows is emptied by processes that write, so it is not a reader's.
        Self::assemble(place, schemas, settings, clock, Access::Read, None).await
    }

    /// Opens the tables at a place.
    pub(crate) async fn assemble(
        place: Place,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        access: Access,
        spill: Option<PathBuf>,
    ) -> Result<Self> {
        Self::of(Parts::new(place, schemas, settings, clock, access, spill)).await
    }

    /// Opens the tables of a store.
    pub(crate) async fn of(parts: Parts<'_>) -> Result<Self> {
        parts.settings.check()?;
        let place = &parts.place;
        let counts: Vec<String> = parts.schemas.iter().map(|schema| exchanges(schema.source)).collect();
        let dead_letters = parts.open(Layout::dead_letters(place), parts.schemas, &counts, true).await?;
        let is_draft = parts.logs.is_some();
        let (mut sources, mut written) = (BTreeMap::new(), BTreeMap::new());
        for &schema in parts.schemas {
            let may_differ = parts.remade == Some(schema.source);
            let silver = Layout { may_differ, ..Layout::silver(schema, place) };
            let source = Source {
                schema,
                bronze: parts.open(Layout::bronze(schema.source, place), &[schema], &[], !is_draft).await?,
                dead_letters: dead_letters.clone(),
                silver: parts.open(silver, &[schema], &[exchanges(schema.source)], true).await?,
                turn: tokio::sync::Mutex::new(()),
            };
            written.insert(schema.source, Written::of(schema.source, &source));
            sources.insert(schema.source, source);
        }
        let coverage = [COVERAGE_PREFIX.to_owned()];
        let coverage = parts.open(Layout::coverage(place), &[], &coverage, !is_draft).await?;
        let runs = parts.open(Layout::runs(place), &[], &[], !is_draft).await?;
        let Parts { place, settings, clock, access, spill, engine, .. } = parts;
        let engine = match engine {
            Some(engine) => engine,
            None => Arc::new(Engine::new(spill.clone(), &settings, &place)?),
        };
        let inner = Inner {
            properties: writer_properties(&settings)?,
            engine,
            spill,
            coverage,
            maintenance: Arc::default(),
            coverage_turn: tokio::sync::Mutex::new(()),
            written: Mutex::new(written),
            settings,
            clock,
            sources,
            dead_letters,
            runs,
            gold: tokio::sync::Mutex::default(),
            checked: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            access,
            place,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl<'a> Parts<'a> {
    /// Those of a store that is no draft and is used as it is.
    pub(crate) fn new(
        place: Place,
        schemas: &'a [&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        access: Access,
        spill: Option<PathBuf>,
    ) -> Self {
        Self { place, logs: None, schemas, remade: None, settings, clock, access, spill, engine: None }
    }

    /// Opens a table of some sources; makes it where that `is_wanted`, and this process writes. Beside the sources' own the
    /// appIds of its `txn` actions may begin with `others`.
    async fn open(&self, layout: Layout, of: &[&RowSchema], others: &[String], is_wanted: bool) -> Result<Arc<Table>> {
        let own = of.iter().map(|schema| prefix(&layout.name, schema.source));
        let prefixes = own.chain(others.iter().cloned()).collect();
        let layout = match &self.logs {
            Some(logs) => layout.with_log_below(logs),
            None => layout,
        };
        let opened = if self.access.writes() && is_wanted {
            Table::open(layout, prefixes).await?
        } else {
            Table::open_read_only(layout, prefixes).await?
        };
        Ok(Arc::new(opened))
    }
}
