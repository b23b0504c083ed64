//! The store as a whole: the conformance suite, and what kills, damage and changed settings do to it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use contract::conformance::hot_store::{
    CASES, NOW, RETENTION_DAYS, SCHEMA, SOURCE, Stored, Subject, days_before, expected, positions, rows, rows_at,
    stored,
};
use contract::{Column, HotStore, Kind, Period, Positions, Remedy, RowSchema, Search, Store, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use crate::{Settings, TantivyStore};

struct Folder(TempDir);

#[async_trait]
impl Subject for Folder {
    async fn open(&self) -> Arc<dyn HotStore> {
        Arc::new(open(self.0.path()))
    }
}

fn settings() -> Settings {
    Settings { retention_days: RETENTION_DAYS, writer_memory_bytes: 15_000_000, ..Settings::default() }
}

fn open(folder: &Path) -> TantivyStore {
    open_with(folder, settings())
}

fn open_with(folder: &Path, settings: Settings) -> TantivyStore {
    TantivyStore::open(folder, &[&SCHEMA], settings, Arc::new(|| NOW)).unwrap()
}

/// A folder's files as they are now: what a process killed at this moment leaves.
pub(crate) fn image(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(folder, copy.path());
    copy
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

fn replace_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_files(from, to);
}

/// Writes and commits the rows of offsets 0 to 30, as the runtime does from where the store stands.
async fn replay(store: &TantivyStore) -> Stored {
    let from = store.committed(SOURCE).await.unwrap();
    for start in (from.of(0)..30).step_by(7) {
        store.write(&rows(&[(0, start..(start + 7).min(30))])).await.unwrap();
    }
    assert_eq!(store.commit(SOURCE).await.unwrap(), positions(&[(0, 30)]));
    stored(store).await
}

fn all() -> Stored {
    expected(&[&rows(&[(0, 0..30)])])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_passes_the_conformance_suite() {
    assert!(CASES.len() > 8);
    for (name, case) in CASES {
        println!("{name}");
        case(&Folder(tempfile::tempdir().unwrap())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_a_commit_after_any_of_its_steps_gives_every_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(&rows(&[(0, 0..9)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    store.write(&rows(&[(0, 9..20)])).await.unwrap();
    let before = image(folder.path());
    store.commit(SOURCE).await.unwrap();
    let after = image(folder.path());
    drop(store);
    let indices = ["made-2026.11.20", "made-2026.11.21", "made-2026.11.22"];
    // The checkpoint is of before; the first so many indices were committed.
    for committed in 0..=indices.len() {
        let killed = image(before.path());
        for name in &indices[..committed] {
            replace_folder(&after.path().join(name), &killed.path().join(name));
        }
        let store = open(killed.path());
        assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 9)]));
        assert_eq!(replay(&store).await, all(), "{committed} indices committed");
        assert!(store.notes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_writes_gives_every_row_once_although_writers_were_closed_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(folder.path(), Settings { open_writers_max: 1, ..settings() });
    for start in [0, 7, 14] {
        // A row of another day each.
        for offset in start..start + 7 {
            store.write(&rows(&[(0, offset..offset + 1)])).await.unwrap();
        }
        let killed = image(folder.path());
        let again = open(killed.path());
        assert_eq!(again.committed(SOURCE).await.unwrap(), Positions::default());
        assert_eq!(replay(&again).await, all(), "killed after {start}");
    }
    assert_eq!(replay(&store).await, all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_no_row_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    // One writer: at each change of the day an index is committed in the middle of a write.
    for open_writers_max in [1, 4] {
        let place = folder.path().join(open_writers_max.to_string());
        let (store, full) = (open_with(&place, Settings { open_writers_max, ..settings() }), place.join(".full"));
        store.write(&rows(&[(0, 0..4)])).await.unwrap();
        for start in (4..30).step_by(5) {
            let span = rows(&[(0, start..(start + 5).min(30))]);
            fs::write(&full, "").unwrap();
            if let Err(error) = store.write(&span).await {
                assert_eq!(error.remedy(), Remedy::Retry, "{error}");
                fs::remove_file(&full).unwrap();
                store.write(&span).await.unwrap();
                fs::write(&full, "").unwrap();
            }
            for _ in 0..2 {
                let error = store.commit(SOURCE).await.unwrap_err();
                assert_eq!(error.remedy(), Remedy::Retry, "{error}");
            }
            fs::remove_file(&full).unwrap();
            if start % 2 == 0 {
                store.commit(SOURCE).await.unwrap();
            }
        }
        assert_eq!(store.commit(SOURCE).await.unwrap(), positions(&[(0, 30)]));
        assert_eq!(stored(&store).await, all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_more_days_than_may_be_open_wait_for_the_commit_and_so_do_those_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(folder.path(), Settings { open_writers_max: 2, ..settings() });
    store.write(&rows(&[(0, 0..1)])).await.unwrap();
    assert_eq!(store.open_writers(SOURCE), 1);
    for (from, to) in [(1, 8), (8, 9), (9, 16)] {
        store.write(&rows(&[(0, from..to)])).await.unwrap();
        assert_eq!(store.open_writers(SOURCE), 1);
    }
    let killed = image(folder.path());
    assert_eq!(store.commit(SOURCE).await.unwrap(), positions(&[(0, 16)]));
    assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..16)])]));
    assert_eq!(replay(&store).await, all());
    assert_eq!(replay(&open(killed.path())).await, all());
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_take_no_rows_are_closed_by_the_janitors_next_round() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(folder.path(), Settings { writer_idle_seconds: 0, ..settings() });
    store.write(&rows(&[(0, 0..9)])).await.unwrap();
    assert_eq!(store.open_writers(SOURCE), 3);
    store.expire(SOURCE, NOW, &Positions::default()).await.unwrap();
    assert_eq!(store.open_writers(SOURCE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_index_is_set_aside_and_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(&rows_at(&[(0, 0..5)], |_| days_before(1))).await.unwrap();
    store.write(&rows_at(&[(0, 5..9)], |_| NOW)).await.unwrap();
    store.write(&rows_at(&[(0, 9..12)], |_| days_before(1))).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    let name = "made-2026.11.22";
    let segment = |path: &Path, extension: &str| {
        let files = fs::read_dir(path.join(name)).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|file| file.extension().is_some_and(|is| is == extension)).unwrap()
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 6] = [
        ("garbage", &|path| fs::write(path.join(name).join("meta.json"), b"{\"seg").unwrap()),
        ("no commit", &|path| fs::remove_file(path.join(name).join("meta.json")).unwrap()),
        ("no segment", &|path| fs::remove_file(segment(path, "term")).unwrap()),
        ("cut", &|path| fs::File::options().write(true).open(segment(path, "fast")).unwrap().set_len(9).unwrap()),
        ("empty", &|path| {
            fs::read_dir(path.join(name)).unwrap().for_each(|f| fs::remove_file(f.unwrap().path()).unwrap())
        }),
        ("missing", &|path| fs::remove_dir_all(path.join(name)).unwrap()),
    ];
    for (what, damage) in damages {
        let damaged = image(folder.path());
        damage(damaged.path());
        let store = open(damaged.path());
        assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 5)]), "{what}");
        assert!(store.notes().iter().any(|note| note.contains(name)), "{what}: {:?}", store.notes());
        assert_eq!(damaged.path().join("quarantine").join(format!("{name}.1")).is_dir(), what != "missing", "{what}");
        drop(store);
        let store = open(damaged.path());
        assert!(store.notes().is_empty(), "{what} is said once");
        store.write(&rows_at(&[(0, 5..9)], |_| NOW)).await.unwrap();
        store.write(&rows_at(&[(0, 9..12)], |_| days_before(1))).await.unwrap();
        store.commit(SOURCE).await.unwrap();
        let (early, today) = (rows_at(&[(0, 0..5), (0, 9..12)], |_| days_before(1)), rows_at(&[(0, 5..9)], |_| NOW));
        assert_eq!(stored(&store).await, expected(&[&early, &today]), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_written_again_after_a_fall_back_never_lower_the_mark_of_an_index_that_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let today = |ranges: &[(i32, std::ops::Range<i64>)]| rows_at(ranges, |_| NOW);
    store.write(&rows_at(&[(0, 0..1), (1, 0..1)], |_| days_before(1))).await.unwrap();
    store.write(&today(&[(0, 1..10), (1, 1..20)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    fs::remove_dir_all(folder.path().join("made-2026.11.21")).unwrap();
    let store = open(folder.path());
    assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 0), (1, 0)]));
    store.write(&rows_at(&[(0, 0..1), (1, 0..1)], |_| days_before(1))).await.unwrap();
    // Partition 0 goes beyond what the index has while partition 1 is still far behind it.
    store.write(&today(&[(0, 1..12), (1, 1..3)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    store.write(&today(&[(1, 3..25)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let yesterday = rows_at(&[(0, 0..1), (1, 0..1)], |_| days_before(1));
    assert_eq!(stored(&store).await, expected(&[&yesterday, &today(&[(0, 1..12), (1, 1..25)])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_checkpoint_is_position_zero_and_every_row_stands_once_after_replay() {
    let folder = tempfile::tempdir().unwrap();
    replay(&open(folder.path())).await;
    let checkpoint = folder.path().join("made.checkpoint");
    for damage in [&|path: &Path| fs::write(path, "{}").unwrap() as (), &|path: &Path| fs::remove_file(path).unwrap()]
        as [&dyn Fn(&Path); 2]
    {
        damage(&checkpoint);
        let store = open(folder.path());
        assert_eq!(store.notes().len(), 1, "{:?}", store.notes());
        assert_eq!(store.committed(SOURCE).await.unwrap(), Positions::default());
        assert_eq!(replay(&store).await, all());
    }
    assert!(folder.path().join("quarantine/made.checkpoint.1").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_began_before_its_day_was_removed_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    replay(&store).await;
    let mut reading = store.rows(SOURCE).await.unwrap();
    let later = Timestamp(NOW.0 + 30 * 86_400_000_000);
    let expired = store.expire(SOURCE, later, &positions(&[(0, 30)])).await.unwrap();
    assert_eq!(expired.removed.len(), 3);
    let mut count = 0;
    while let Some(row) = futures::StreamExt::next(&mut reading).await {
        row.unwrap();
        count += 1;
    }
    assert_eq!(count, 30);
    assert!(stored(&store).await.is_empty());
    let left: Vec<_> = crate::directory::file_names(folder.path()).unwrap();
    assert_eq!(left, ["made.checkpoint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_an_index_is_made_leaves_nothing_in_the_way_of_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    replay(&open(folder.path())).await;
    let unborn = folder.path().join("made-2026.11.18");
    for half_written in [None, Some(".tmpA1b2C3")] {
        fs::create_dir(&unborn).unwrap();
        half_written.into_iter().for_each(|name| fs::write(unborn.join(name), b"{\"segm").unwrap());
        let store = open(folder.path());
        assert!(!unborn.exists() && store.notes().is_empty());
        assert_eq!(stored(&store).await, all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_a_removal_leaves_the_whole_day_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    replay(&store).await;
    let before = image(folder.path());
    let later = Timestamp(NOW.0 + 9 * 86_400_000_000);
    let next = positions(&[(0, 30)]);
    assert_eq!(store.expire(SOURCE, later, &next).await.unwrap().removed, ["made-2026.11.20"]);
    let left = stored(&store).await;
    for is_renamed in [false, true] {
        let killed = image(before.path());
        fs::copy(folder.path().join("made.checkpoint"), killed.path().join("made.checkpoint")).unwrap();
        let (whole, gone) = (killed.path().join("made-2026.11.20"), killed.path().join("made-2026.11.20.deleted"));
        if is_renamed {
            fs::rename(&whole, &gone).unwrap();
        }
        let store = open(killed.path());
        assert!(!gone.exists() && store.notes().is_empty());
        assert_eq!(stored(&store).await, if is_renamed { left.clone() } else { all() });
        assert_eq!(store.expire(SOURCE, later, &next).await.unwrap().removed.len(), usize::from(!is_renamed));
        assert_eq!(stored(&store).await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_kept_by_month_with_retention_zero_and_a_day_never_stands_in_two_indices() {
    let folder = tempfile::tempdir().unwrap();
    let keep_all = Settings { retention_days: 0, ..settings() };
    let in_2015 = rows_at(&[(0, 0..3)], |_| Timestamp::parse_rfc3339("2015-01-31T23:59:59Z").unwrap());
    let names = async |store: &TantivyStore| -> Vec<String> {
        store.indices("*").await.unwrap().into_iter().map(|index| index.name).collect()
    };
    let store = open(folder.path());
    store.write(&in_2015).await.unwrap();
    store.write(&rows_at(&[(0, 3..5)], |_| NOW)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    assert_eq!(names(&store).await, ["made-2026.11.22"]);
    drop(store);
    let store = open_with(folder.path(), keep_all);
    assert_eq!(store.first_day(NOW), None);
    store.write(&rows_at(&[(0, 5..6)], |_| Timestamp::parse_rfc3339("2015-01-31T23:59:59Z").unwrap())).await.unwrap();
    store.write(&rows_at(&[(0, 6..8)], |_| NOW)).await.unwrap();
    store.write(&rows_at(&[(0, 8..9)], |_| days_before(1))).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    assert_eq!(names(&store).await, ["made-2015.01", "made-2026.11", "made-2026.11.22"]);
    drop(store);
    let store = open(folder.path());
    store.write(&rows_at(&[(0, 9..10)], |_| days_before(1))).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    assert_eq!(names(&store).await.len(), 3, "the month takes its days also now");
    let expired = store.expire(SOURCE, NOW, &positions(&[(0, 10)])).await.unwrap();
    assert_eq!(expired.removed, ["made-2015.01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_the_writer_sees_its_commits_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path());
    let reader = TantivyStore::open_read_only(folder.path(), &[&SCHEMA], settings(), Arc::new(|| NOW)).unwrap();
    assert_eq!(stored(&reader).await.len(), 0);
    writer.write(&rows(&[(0, 0..30)])).await.unwrap();
    writer.commit(SOURCE).await.unwrap();
    assert_eq!(stored(&reader).await, all());
    assert_eq!(reader.committed(SOURCE).await.unwrap(), positions(&[(0, 30)]));
    let all = json!({"query": {"match_all": {}}});
    assert_eq!(reader.count("made", &all).await.unwrap()["count"], 30);
    let refused = reader.write(&rows(&[(0, 30..31)])).await.unwrap_err().to_string();
    assert_eq!(refused, "failed to change the hot store of `made`, which was opened for reading");
    let second = TantivyStore::open(folder.path(), &[&SCHEMA], settings(), Arc::new(|| NOW));
    let said = second.err().unwrap().to_string();
    assert!(said.contains("another process has it open") && said.contains("set ELASTICSEARCH_HOSTS"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_an_older_version_lacks_new_columns_and_one_of_another_form_is_built_anew() {
    static OLDER: RowSchema = RowSchema { source: SOURCE, period: Period::Day, columns: SCHEMA.columns.split_at(5).0 };
    static OTHER: RowSchema = RowSchema {
        source: SOURCE,
        period: Period::Day,
        columns: &[Column { name: "kind", kind: Kind::Text, search: Search::Words, doc: "Was exact." }],
    };
    let folder = tempfile::tempdir().unwrap();
    let open_as = |schema| TantivyStore::open(folder.path(), &[schema], settings(), Arc::new(|| NOW)).unwrap();
    let store = open_as(&OLDER);
    // The columns of the older schema are the first of the newer, so its rows fit.
    store.write(&rows_at(&[(0, 0..4)], |_| NOW)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    let store = open(folder.path());
    assert!(store.notes().is_empty());
    store.write(&rows_at(&[(0, 4..8)], |_| NOW)).await.unwrap();
    store.write(&rows_at(&[(0, 8..9)], |_| days_before(1))).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let mapping = store.mapping("made").await.unwrap();
    assert!(mapping["made-2026.11.22"]["mappings"]["properties"]["size"].is_object());
    assert!(mapping["made-2026.11.22"]["mappings"]["properties"].get("public").is_none());
    assert!(mapping["made-2026.11.21"]["mappings"]["properties"]["public"].is_object());
    let title = json!({"query": {"match": {"title": "seven"}}});
    assert_eq!(store.count("made", &title).await.unwrap()["count"], 0);
    assert_eq!(stored(&store).await.len(), 9);
    drop(store);
    let store = open_as(&OTHER);
    assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 0)]));
    assert!(store.notes()[0].contains("`kind` is indexed in another way"), "{:?}", store.notes());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_writers_are_closed_and_open_again_for_the_next_row() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(folder.path(), Settings { writer_idle_seconds: 0, ..settings() });
    store.write(&rows(&[(0, 0..9)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    // The locks of the writers are free again.
    for name in ["made-2026.11.20", "made-2026.11.21", "made-2026.11.22"] {
        let lock = fs::File::open(folder.path().join(name).join(".tantivy-writer.lock")).unwrap();
        assert!(lock.try_lock().is_ok(), "{name}");
    }
    assert_eq!(replay(&store).await, all());
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_stay_few_over_many_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for offset in 0..60 {
        store.write(&rows_at(&[(0, offset..offset + 1)], |_| NOW)).await.unwrap();
        store.commit(SOURCE).await.unwrap();
    }
    let meta = fs::read_to_string(folder.path().join("made-2026.11.22/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let segments = meta["segments"].as_array().unwrap().len();
    // Merges run beside the commits, so some segments may wait for theirs.
    assert!(segments < 40, "{segments} segments");
    assert_eq!(stored(&store).await, expected(&[&rows_at(&[(0, 0..60)], |_| NOW)]));
}
