//! Drafts: the suite, and an exchange that is cut short after any of its steps.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use contract::conformance::hot_drafts;
use contract::conformance::hot_store::{
    NOW, RETENTION_DAYS, SCHEMA, SOURCE, expected, positions, rows, rows_at, stored,
};
use contract::{HotDrafts, HotStore, Store};

use crate::draft::folder_of;
use crate::source::HotSource;
use crate::tests::image;
use crate::{Settings, TantivyStore};

fn drafts(folder: &Path) -> Arc<dyn HotDrafts> {
    Arc::new(open(folder))
}

fn open(folder: &Path) -> TantivyStore {
    let settings = Settings { retention_days: RETENTION_DAYS, writer_memory_bytes: 15_000_000, ..Settings::default() };
    TantivyStore::open(folder, &[&SCHEMA], settings, Arc::new(|| NOW)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_pass_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    hot_drafts::exchange(async || drafts(folder.path())).await;
    let left: Vec<_> = fs::read_dir(folder.path().join("draft")).unwrap().collect();
    assert!(left.is_empty(), "no draft stays behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_cut_short_after_any_of_its_steps_is_finished_by_the_next_start() {
    let (old, new) = (
        rows(&[(0, 0..20)]),
        rows_at(&[(0, 0..20)], |offset| contract::conformance::hot_store::days_before(1 + offset % 3)),
    );
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(&old).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let draft = store.draft(SOURCE).await.unwrap();
    draft.write(&new).await.unwrap();
    draft.commit(SOURCE).await.unwrap();
    drop((draft, store));
    let plan = {
        let source = open(folder.path()).source(SOURCE).unwrap();
        source.plan(&HotSource::open_draft(&source.common, &SCHEMA).unwrap(), None).unwrap()
    };
    let steps = plan.steps();
    assert_eq!(steps.len(), 1 + 3 + 2 + 4);
    for step in 0..=steps.len() {
        let image = image(folder.path());
        plan.save(&folder_of(image.path(), SOURCE)).unwrap();
        steps[..step].iter().for_each(|step| step.run(image.path(), SOURCE).unwrap());
        let store = open(image.path());
        assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 20)]));
        assert_eq!(stored(&store).await, expected(&[&new]), "after step {step}");
        assert!(store.notes().is_empty(), "{:?}", store.notes());
        assert!(!image.path().join("draft/made").exists());
        let names: Vec<_> = store.indices("made-*").await.unwrap().into_iter().map(|index| index.name).collect();
        assert_eq!(names, ["made-2026.11.19", "made-2026.11.20", "made-2026.11.21"]);
    }
}
