//! Tables that get columns, and those that cannot.

use std::path::Path;
use std::sync::Arc;

use contract::conformance::cold_store::{SCHEMA, SOURCE, number, record, rows};
use contract::{
    ColdStore, Column, Kind, OffsetRange, Remedy, Result, RowSchema, RowsBuilder, Search, Span, Store, SystemClock,
};

use crate::{DeltaStore, Settings};

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, search: Search::Exact, doc: "Of a later version." }
}

const TYPE: Column = column("type", Kind::Text);
const NUMBER: Column = column("number", Kind::Integer);
const LABELS: Column = column("labels", Kind::TextList);
const PUBLIC: Column = column("public", Kind::Boolean);
const CREATED_AT: Column = column("created_at", Kind::Timestamp);
const RATIO: Column = column("ratio", Kind::Float);
const PARTS: Column = column("parts", Kind::StructList(MEMBERS));
const MEMBERS: &[Column] = &[column("parts.name", Kind::Text), column("parts.size", Kind::Integer)];

/// The suite's columns and two more.
pub(crate) static GROWN: RowSchema = RowSchema {
    source: SOURCE,
    period: contract::Period::Day,
    columns: &[
        TYPE,
        NUMBER,
        column("language", Kind::Text),
        LABELS,
        PUBLIC,
        CREATED_AT,
        RATIO,
        PARTS,
        column("stars", Kind::TextList),
    ],
};

/// One column is of another type.
pub(crate) static CHANGED: RowSchema = RowSchema {
    source: SOURCE,
    period: contract::Period::Day,
    columns: &[TYPE, column("number", Kind::Text), LABELS, PUBLIC, CREATED_AT, RATIO, PARTS],
};

/// One column is gone.
static SHRUNK: RowSchema = RowSchema {
    source: SOURCE,
    period: contract::Period::Day,
    columns: &[TYPE, NUMBER, LABELS, PUBLIC, CREATED_AT, PARTS],
};

struct Grown;

impl contract::Processor for Grown {
    fn process(&self, record: &contract::RawRecord, row: &mut contract::RowBuilder) -> Result<(), contract::Reject> {
        row.text(GROWN.place("language"), if record.body.ends_with(b"1") { "rust" } else { "go" });
        Ok(())
    }
}

pub(crate) fn grown_rows(from: i64, to: i64) -> contract::Rows {
    let mut builder = RowsBuilder::new(&GROWN);
    for offset in from..to {
        assert!(builder.record(&record(0, offset), &Grown).is_ok());
    }
    builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from, to }] })
}

async fn open(directory: &Path, schema: &'static RowSchema) -> Result<DeltaStore> {
    let settings = Settings { compaction_files_min: 2, ..Settings::default() };
    DeltaStore::open(directory, &[schema], settings, Arc::new(SystemClock)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_gets_new_columns_in_place_and_old_rows_have_none_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &SCHEMA).await.unwrap();
    store.write(&rows(0, 0, 20)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    for (from, compacts) in [(20, false), (40, true)] {
        let store = open(directory.path(), &GROWN).await.unwrap();
        store.write(&grown_rows(from, from + 20)).await.unwrap();
        for committed in [false, true] {
            if committed {
                store.commit(SOURCE).await.unwrap();
            }
            let count = async |filter: &str| {
                number(&store, &format!("SELECT count(*) FROM silver.github WHERE {filter}")).await
            };
            assert_eq!(count("language IS NULL").await, 18);
            assert_eq!(count("language = 'rust'").await, from / 10);
            assert_eq!(count("stars IS NULL").await, 18 + from);
            assert_eq!(count("true").await, 18 + from);
            assert_eq!(count("_offset < 20 AND type IS NOT NULL").await, 18);
        }
        if compacts {
            store.maintain().await.unwrap();
            let tables = store.tables().await.unwrap();
            assert_eq!(tables.iter().find(|table| table.name == "silver.github").unwrap().files, 1);
            assert_eq!(number(&store, "SELECT count(*) FROM silver.github WHERE language IS NULL").await, 18);
        }
        // One that reads, of the version before.
        let clock = Arc::new(SystemClock);
        let reader =
            DeltaStore::open_read_only(directory.path(), &[&SCHEMA], Settings::default(), clock).await.unwrap();
        assert_eq!(number(&reader, "SELECT count(*) FROM silver.github").await, 18 + from);
    }
    let log = std::fs::read_dir(directory.path().join("silver/github/_delta_log")).unwrap();
    let texts = log.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let grown: Vec<_> = texts.filter(|text| text.contains(r#""metaData""#) && text.contains("language")).collect();
    assert_eq!(grown.len(), 1, "the columns are added once");
    assert!(grown[0].contains("Of a later version."), "with what they mean: {}", grown[0]);
}

#[tokio::test]
async fn a_changed_type_and_a_removed_column_are_refused_and_the_way_out_is_named() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &SCHEMA).await.unwrap());
    for (schema, what) in [(&CHANGED, "`number` is of type Int64"), (&SHRUNK, "`ratio`, which this version has not")] {
        let error = open(directory.path(), schema).await.err().expect("it cannot be");
        assert_eq!(error.remedy(), Remedy::Change);
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("`databroker reprocess github`"), "{text}");
    }
    open(directory.path(), &SCHEMA).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_add_the_same_columns_at_once_add_them_once() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &SCHEMA).await.unwrap());
    let place = crate::place::Place::on_disk(&std::fs::canonicalize(directory.path()).unwrap()).unwrap();
    let layout = crate::layout::Layout::silver(&GROWN, &place);
    let store = layout.place.log_store();
    let state = deltalake::table::state::DeltaTableState::try_new(store.as_ref(), None).await.unwrap();
    // Both read the log before either writes to it.
    let [one, other] = [(); 2].map(|()| crate::columns::grow(&layout, &store, &state));
    let (one, other) = tokio::join!(one, other);
    assert!(one.unwrap() && other.unwrap());
    let now = deltalake::table::state::DeltaTableState::try_new(store.as_ref(), None).await.unwrap();
    assert_eq!(crate::columns::missing(&layout, &now).unwrap(), Vec::<String>::new());
}
