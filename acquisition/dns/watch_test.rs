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
use super::settings::{AfterRead, Settings};
use super::watch::{Folder, FolderCollector, OpenCapture};
use crate::{Context, HarvestSize};

/// The start of the tests' clock, which files written now are older than.
const NOW: i64 = 4_000_000_000_000_000;

struct Subject {
    folder: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    after_read: AfterRead,
    collector: FolderCollector,
    cursor: Cursor,
}

impl Subject {
    fn new() -> Self {
        Self::with(AfterRead::Keep)
    }

    fn with(after_read: AfterRead) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let collector = collector(folder.path(), &clock, after_read);
        Self { folder, clock, after_read, collector, cursor: Cursor::default() }
    }

    /// The same folder after a restart.
    fn restart(&mut self) {
        self.collector = collector(self.folder.path(), &self.clock, self.after_read);
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
        let (names, coverage) = self.read_names().await;
        (names.len(), coverage)
    }

    /// The same, with the first label of each message's question.
    async fn read_names(&mut self) -> (Vec<String>, Vec<Coverage>) {
        let (mut records, mut coverage) = (Vec::new(), Vec::new());
        loop {
            let harvest = self.collector.poll(&self.cursor).await.unwrap();
            records.extend(harvest.records.iter().map(|record| first_label(&record.body)));
            coverage.extend(harvest.coverage);
            self.cursor = harvest.cursor;
            harvest.acknowledge.iter().for_each(contract::Acknowledge::on_disk);
            if harvest.poll_again_in != Some(Duration::ZERO) {
                return (records, coverage);
            }
        }
    }
}

fn first_label(body: &[u8]) -> String {
    let dns = Dnstap::read(body).unwrap().dns().unwrap();
    let length = usize::from(dns.get(12).copied().unwrap_or(0));
    String::from_utf8_lossy(dns.get(13..13 + length).unwrap_or_default()).into_owned()
}

fn collector(folder: &Path, clock: &Arc<AtomicI64>, after_read: AfterRead) -> FolderCollector {
    let now = clock.clone();
    let clock: Arc<dyn Clock> = Arc::new(move || Timestamp(now.load(Ordering::Relaxed)));
    let harvest = HarvestSize { records_max: 2, ..HarvestSize::default() };
    let context = Context { clock: clock.clone(), harvest };
    let open: OpenCapture =
        Arc::new(move |path, waiting| crate::file::open(path, &context, reading(&Settings::default(), waiting)?));
    let folder = Folder { path: folder.to_owned(), settle: Duration::from_secs(5), after_read, files_max: 20 };
    FolderCollector::new(SourceId("dns"), folder, clock, open)
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
async fn the_file_that_came_first_is_read_first_and_a_restart_goes_on_inside_one() {
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

/// A pcap of raw IP packets, a second apart: each a protocol and its payload.
fn pcap(packets: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0, 0, 0, 65_535, 101].map(u32::to_be_bytes).concat();
    for (seconds, (protocol, payload)) in (1_u32..).zip(packets) {
        let length = 20 + payload.len() as u32;
        file.extend([seconds, 0, length, length].map(u32::to_be_bytes).concat());
        file.extend([0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, *protocol, 0, 0]);
        file.extend([192, 0, 2, 1, 192, 0, 2, 53]);
        file.extend(payload);
    }
    file
}

fn query(name: &str) -> Vec<u8> {
    let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    [&header[..], name.as_bytes(), &[0, 0, 1, 0, 1]].concat()
}

fn udp(name: &str) -> (u8, Vec<u8>) {
    let query = query(name);
    (17, [&[0x9c, 0x40, 0, 53, 0, 8 + query.len() as u8, 0, 0][..], &query].concat())
}

/// A segment with a message at an offset of the stream; without a name its SYN.
fn tcp(offset: u8, name: &str) -> (u8, Vec<u8>) {
    let (flags, body) = match name {
        "" => (2, Vec::new()),
        name => (16, [&[0, query(name).len() as u8][..], &query(name)].concat()),
    };
    let sequence = if flags == 2 { 0 } else { 1 + offset };
    let head = [0x9c, 0x40, 0, 53, 0, 0, 0, sequence, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0];
    (6, [&head[..], &body].concat())
}

#[tokio::test]
async fn a_capture_that_grows_gives_each_message_once_also_behind_a_hole() {
    let packets = [udp("first"), tcp(0, ""), tcp(24, "second"), udp("third"), tcp(0, "zero"), udp("fourth")];
    for seen in 3..=5 {
        let mut subject = Subject::new();
        subject.write("a.pcap", &pcap(&packets[..seen]));
        subject.pass(5);
        let mut all = subject.read_names().await.0;
        assert!(!all.contains(&"second".to_owned()) || seen == 5, "what is before it may still come");
        subject.restart();
        subject.write("a.pcap", &pcap(&packets));
        subject.pass(5);
        all.extend(subject.read_names().await.0);
        subject.pass(600);
        all.extend(subject.read_names().await.0);
        all.sort();
        assert_eq!(all, ["first", "fourth", "second", "third", "zero"], "after {seen} packets");
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_read_once_the_file_grows_no_more_or_missed_with_it() {
    let capture = pcap(&[udp("first"), tcp(0, ""), tcp(24, "second"), udp("third")]);
    let mut subject = Subject::new();
    subject.write("a.pcap", &capture);
    subject.pass(5);
    assert_eq!(subject.read_names().await.0, ["first", "third"]);
    subject.pass(50);
    assert_eq!(subject.read_names().await.0.len(), 0);
    subject.pass(5);
    subject.restart();
    assert_eq!(subject.read_names().await.0, ["second"]);
    subject.pass(600);
    assert_eq!(subject.read_names().await, (Vec::new(), Vec::new()));
    subject.write("b.pcap", &[&capture[..], &[0; 3]].concat());
    subject.pass(5);
    assert_eq!(subject.read_names().await.0.len(), 2);
    std::fs::remove_file(subject.path("b.pcap")).unwrap();
    let (records, coverage) = subject.read().await;
    assert_eq!((records, coverage[0].records), (0, 1));
    assert_eq!(coverage[0].reason, "files are gone in which 1 TCP streams waited for a segment");
}

#[tokio::test]
async fn a_file_is_deleted_once_it_is_logged_if_so_set_and_however_many_come() {
    let mut subject = Subject::with(AfterRead::Delete);
    for number in 0..30 {
        subject.write(&format!("{number}.pcap"), &pcap(&[udp(&format!("name{number}")), tcp(0, ""), tcp(24, "held")]));
    }
    subject.pass(5);
    let first = subject.collector.poll(&subject.cursor).await.unwrap();
    subject.cursor = first.cursor.clone();
    assert_eq!((first.records.len(), subject.folder.path().read_dir().unwrap().count()), (2, 30), "it is not on disk");
    subject.restart();
    let (records, _) = subject.read().await;
    assert_eq!((first.records.len() + records, subject.folder.path().read_dir().unwrap().count()), (60, 0));
}

#[tokio::test]
async fn kept_files_are_read_once_however_many_there_are() {
    let mut subject = Subject::new();
    let mut number = 0_u32;
    let mut write = |subject: &Subject, count: u32| {
        for _ in 0..count {
            number += 1;
            subject.write(&format!("{}.pcap", number % 1_000), &pcap(&[udp(&format!("name{number}"))]));
        }
        number
    };
    let (mut names, mut all) = (Vec::new(), 0);
    for round in 0..12 {
        all = write(&subject, 15);
        subject.pass(61);
        names.extend(subject.read_names().await.0);
        if round % 4 == 3 {
            // It has to look for a while until it forgets again.
            assert_eq!(names.len(), all as usize, "round {round}");
            subject.restart();
        }
    }
    assert!(subject.cursor.0.len() < 20 * 100 + 200, "{} bytes", subject.cursor.0.len());
    // More at once than are known by name: those behind wait until the first can be forgotten.
    all += write(&subject, 60) - all;
    subject.pass(61);
    assert_eq!(subject.read().await, (0, Vec::new()), "after a restart it has to look twice");
    for _ in 0..8 {
        subject.pass(61);
        names.extend(subject.read_names().await.0);
        assert!(subject.cursor.0.len() < 20 * 100 + 200, "{} bytes", subject.cursor.0.len());
    }
    assert_eq!(names.len(), all as usize);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all as usize, "each came once");
    subject.restart();
    subject.pass(61);
    assert_eq!(subject.read().await, (0, Vec::new()));
}

#[tokio::test]
async fn an_old_file_that_is_moved_in_is_new_also_where_others_of_its_time_are_forgotten() {
    let mut subject = Subject::new();
    for round in 0..4_u8 {
        for number in 0..15 {
            subject.write(&format!("{round}-{number}.fstrm"), &frames(round * 16 + number, 1));
        }
        subject.pass(61);
        assert_eq!(subject.read().await.0, 15);
    }
    let elsewhere = tempfile::tempdir_in(subject.folder.path()).unwrap();
    let old = elsewhere.path().join("old.fstrm");
    std::fs::write(&old, frames(200, 3)).unwrap();
    File::options().write(true).open(&old).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    std::fs::rename(&old, subject.path("old.fstrm")).unwrap();
    subject.restart();
    let mut read = subject.read().await.0;
    subject.pass(61);
    read += subject.read().await.0;
    subject.pass(61);
    read += subject.read().await.0;
    assert_eq!(read, 3);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn files_that_settle_while_others_are_renamed_in_are_read_though_these_came_later() {
    let mut subject = Subject::new();
    assert_eq!(subject.read().await.0, 0);
    for number in 0..5 {
        subject.write(&format!("{number}.pcap"), &pcap(&[udp(&format!("slow{number}"))]));
    }
    // Some ticks of the file system's clock.
    std::thread::sleep(Duration::from_millis(20));
    for number in 0..25 {
        subject.write(".next", &pcap(&[udp(&format!("renamed{number:02}"))]));
        std::fs::rename(subject.path(".next"), subject.path(&format!("renamed{number:02}.pcap"))).unwrap();
    }
    let mut names = Vec::new();
    for _ in 0..6 {
        names.extend(subject.read_names().await.0);
        subject.pass(61);
    }
    assert!(names[..20].iter().all(|name| name.starts_with("renamed")), "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 30, "{names:?}");
}
