//! What a table holds as of one version: its data files, and how far the log was read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::stats::Precision::Exact;
use datafusion::common::{ScalarValue, Statistics};
use deltalake::kernel::{Action, LogicalFileView};
use deltalake::table::state::DeltaTableState;

use crate::columns;
use crate::file_stats;
use crate::layout::{Layout, PartitionValue};
use crate::marks::Marks;

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
    /// Whether its columns are others than the layout's, which may differ.
    pub(crate) differs: bool,
}

/// A data file of the table.
pub(crate) struct CommittedFile {
    /// Its path below the table.
    pub(crate) relative: String,
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

impl Committed {
    /// What a log says. Files that stand in `before` too are taken from there.
    pub(crate) fn read(layout: &Layout, state: &DeltaTableState, marks: Marks, before: &Self) -> Self {
        let known: HashMap<&str, &Arc<CommittedFile>> =
            before.files.iter().map(|file| (file.relative.as_str(), file)).collect();
        let mut files: Vec<_> = (state.log_data().iter())
            .map(|file| match known.get(file.path().as_ref()) {
                Some(known) => Arc::clone(known),
                None => Arc::new(CommittedFile::read(layout, &file)),
            })
            .collect();
        files.sort_by(|one, other| (one.modified_ms, &one.relative).cmp(&(other.modified_ms, &other.relative)));
        let metadata = state.snapshot().metadata();
        let (id, configuration) = (metadata.id().to_owned(), metadata.configuration().clone());
        let differs = columns::differ(layout, state);
        Self { id, version: Some(state.version()), files, marks, configuration, differs }
    }

    /// The first file that `actions` remove and that is not there.
    pub(crate) fn missing<'a>(&self, actions: &'a [Action]) -> Option<&'a str> {
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

impl CommittedFile {
    fn read(layout: &Layout, file: &LogicalFileView) -> Self {
        let relative = file.path().into_owned();
        let values = file.partition_values_map();
        let text = layout.partition_field().and_then(|field| values.get(field.name())).and_then(Option::as_deref);
        let value = layout.partition_value(text).unwrap_or(PartitionValue::Whole);
        let rows = file.num_records();
        let mut bounds = file_stats::parse(file.stats().as_deref(), &layout.schema, rows);
        if let (Some(scalar), Some(column)) =
            (value.scalar(), bounds.column_statistics.get_mut(layout.files.fields().len()))
        {
            (column.min_value, column.max_value) = (Exact(scalar.clone()), Exact(scalar));
            column.null_count = Exact(0);
        }
        Self {
            relative,
            bytes: u64::try_from(file.size()).unwrap_or(0),
            rows,
            value,
            modified_ms: file.modification_time(),
            bounds: Arc::new(bounds),
        }
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
