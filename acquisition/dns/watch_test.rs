//! Watched folders.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use contract::{Clock, Collector, Coverage, CoverageKind, Cursor, Remedy, SourceId, Timestamp};

use super::dnstap::{Dnstap, MessageType};
use super::file::reading;
use super::settings::Settings;
use super::watch::{FolderCollector, OpenCapture};
use crate::{Context, HarvestSize};

/// The start of the tests' clock, which files written now are older than.
const NOW: i64 = 4_000_000_000_000_000;

struct Subject {
    folder: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    collector: FolderCollector,
    cursor: Cursor,
}

impl Subject {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let collector = collector(folder.path(), &clock);
        Self { folder, clock, collector, cursor: Cursor::default() }
    }

    /// The same folder after a restart.
    fn restart(&mut self) {
        self.collector = collector(self.folder.path(), &self.clock);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file whose last write looks as if it were now by the tests' clock.
    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
        let now = std::time::UNIX_EPOCH + Duration::from_micros(self.clock.load(Ordering::Relaxed) as u64);
        File::options().write(true).open(self.path(name)).unwrap().set_modified(now).unwrap();
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// Polls until the folder has nothing more.
    async fn read(&mut self) -> (usize, Vec<Coverage>) {
        let (mut records, mut coverage) = (0, Vec::new());
        loop {
            let harvest = self.collector.poll(&self.cursor).await.unwrap();
            records += harvest.records.len();
            coverage.extend(harvest.coverage);
            self.cursor = harvest.cursor;
            if harvest.poll_again_in != Some(Duration::ZERO) {
                return (records, coverage);
            }
        }
    }
}

fn collector(folder: &Path, clock: &Arc<AtomicI64>) -> FolderCollector {
    let now = clock.clone();
    let clock: Arc<dyn Clock> = Arc::new(move || Timestamp(now.load(Ordering::Relaxed)));
    let harvest = HarvestSize { records_max: 2, ..HarvestSize::default() };
    let context = Context { clock: clock.clone(), harvest };
    let open: OpenCapture = Arc::new(move |path| crate::file::open(path, &context, reading(&Settings::default())?));
    FolderCollector::new(SourceId("dns"), folder.to_owned(), Duration::from_secs(5), clock, open)
}

/// Data frames of so many messages, of a kind.
fn frames(kind: u8, count: u8) -> Vec<u8> {
    let frame = |number: u8| {
        let mut body = BytesMut::new();
        let dns = [kind, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let message_type = MessageType::TOOL_QUERY;
        Dnstap { message_type, query_message: Some(&dns), ..Dnstap::default() }.write(&mut body);
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    };
    (0..count).flat_map(frame).collect()
}

#[tokio::test]
async fn a_file_is_read_once_it_has_not_changed_for_a_while() {
    let mut subject = Subject::new();
    subject.write("a.fstrm", &frames(1, 3));
    assert_eq!(subject.read().await.0, 0);
    subject.pass(4);
    subject.write("a.fstrm", &frames(1, 5));
    assert_eq!(subject.read().await.0, 0);
    subject.pass(4);
    assert_eq!(subject.read().await.0, 0, "it changed four seconds ago");
    subject.pass(1);
    let (records, coverage) = subject.read().await;
    assert_eq!(records, 5);
    assert_eq!((coverage[0].kind, coverage[0].records), (CoverageKind::Covered, 5));
    assert_eq!(coverage[0].reason, "the file `a.fstrm`");
    assert_eq!(subject.read().await, (0, Vec::new()));
    subject.restart();
    assert_eq!(subject.read().await, (0, Vec::new()), "the cursor knows it");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_is_renamed_into_the_folder_is_read_at_once() {
    let mut subject = Subject::new();
    assert_eq!(subject.read().await.0, 0);
    subject.write("a.fstrm.part", &frames(1, 3));
    subject.write(".b.fstrm", &frames(2, 3));
    subject.write("empty", b"");
    std::fs::create_dir(subject.path("folder")).unwrap();
    assert_eq!(subject.read().await.0, 0);
    std::fs::rename(subject.path("a.fstrm.part"), subject.path("a.fstrm")).unwrap();
    assert_eq!(subject.read().await.0, 3);
    subject.pass(60);
    assert_eq!(subject.read().await.0, 0, "what is hidden, unfinished or empty is left alone");
}

#[tokio::test]
async fn the_same_content_under_another_name_is_not_read_again() {
    let mut subject = Subject::new();
    subject.write("a.fstrm", &frames(1, 3));
    subject.pass(5);
    assert_eq!(subject.read().await.0, 3);
    std::fs::copy(subject.path("a.fstrm"), subject.path("b.fstrm")).unwrap();
    subject.pass(5);
    assert_eq!(subject.read().await, (0, Vec::new()));
    std::fs::remove_file(subject.path("a.fstrm")).unwrap();
    subject.restart();
    assert_eq!(subject.read().await, (0, Vec::new()));
    assert!(subject.cursor.0.len() < 150, "what is gone is forgotten: {}", subject.cursor.0);
}

#[tokio::test]
async fn a_file_that_grew_is_read_on_and_one_that_was_replaced_is_read() {
    let mut subject = Subject::new();
    subject.write("a.fstrm", &frames(1, 3));
    subject.pass(5);
    assert_eq!(subject.read().await.0, 3);
    subject.write("a.fstrm", &frames(1, 8));
    subject.pass(5);
    assert_eq!(subject.read().await.0, 5, "what was appended");
    subject.write("a.fstrm", &frames(1, 9));
    subject.pass(5);
    assert_eq!(subject.read().await.0, 1);
    subject.write("a.fstrm", &frames(2, 20));
    subject.pass(5);
    assert_eq!(subject.read().await.0, 20, "another file of the same name");
}

#[tokio::test]
async fn the_oldest_file_comes_first_and_a_restart_goes_on_inside_one() {
    let mut subject = Subject::new();
    subject.write("b.fstrm", &frames(1, 3));
    subject.pass(1);
    subject.write("a.fstrm", &frames(2, 3));
    subject.pass(5);
    let first = subject.collector.poll(&subject.cursor).await.unwrap();
    assert!(first.records.iter().all(|record| Dnstap::read(&record.body).unwrap().dns().unwrap()[0] == 1));
    subject.cursor = first.cursor;
    subject.restart();
    let (records, _) = subject.read().await;
    assert_eq!(first.records.len() + records, 6);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_does_not_hold_up_the_others() {
    let mut subject = Subject::new();
    subject.write("a.fstrm", &frames(1, 3));
    subject.pass(1);
    let cut = frames(2, 3);
    subject.write("b.fstrm", &cut[..cut.len() - 1]);
    subject.pass(5);
    let (records, coverage) = subject.read().await;
    assert_eq!(records, 5);
    let told = coverage.iter().filter(|line| line.kind == CoverageKind::Missed).map(|line| line.reason.as_str());
    assert!(told.clone().any(|reason| reason.contains("it ends inside the frame at byte")), "{coverage:?}");
    let mut away = Subject::new();
    std::fs::remove_dir(away.folder.path()).unwrap();
    let error = away.collector.poll(&away.cursor).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().starts_with("failed to list the folder `"), "{error}");
}

#[tokio::test]
async fn a_file_that_goes_before_it_was_read_whole_is_missed_by_name() {
    let mut subject = Subject::new();
    subject.write("a.fstrm", &frames(1, 3));
    subject.pass(5);
    let first = subject.collector.poll(&subject.cursor).await.unwrap();
    assert_eq!(first.records.len(), 2);
    subject.cursor = first.cursor;
    std::fs::remove_file(subject.path("a.fstrm")).unwrap();
    subject.restart();
    let (records, coverage) = subject.read().await;
    assert_eq!(records, 0);
    assert_eq!(coverage[0].reason, "`a.fstrm` is gone, or another, before it was read whole");
}
