//! Public suffixes: below which names anyone can register.
//!
//! The list that ships is `public_suffix_list.dat` of <https://publicsuffix.org/list/>, whose head says its version;
//! it stands under the Mozilla Public License 2.0. How it is read: <https://github.com/publicsuffix/list/wiki/Format>.
//! All of its rules count, also those of the private section (`github.io`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use contract::{Error, Result};

use super::name::labels;

static SHIPPED: &str = include_str!("public_suffix_list.dat");

/// Bytes of a list that replaces the one that ships, which has 0.34 MB.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Labels of a rule, at the most; the longest in the list has 5.
const LABELS_MAX: usize = 16;

/// How often the file of a list is looked at. It changes about once a day.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How many rows are made between two looks at the time.
const ROWS_BETWEEN_LOOKS: u32 = 1_024;

static LISTS: LazyLock<Lists> = LazyLock::new(|| Lists::new(LOOK_INTERVAL));

/// The list in use.
pub(super) fn list() -> Arc<SuffixList> {
    LISTS.list()
}

/// Takes the list of a file from now on, also what it will be; an empty path takes the one that ships.
///
/// # Errors
/// `Change` when the file cannot be read or has no rules.
pub(super) fn take_file(path: &str) -> Result<()> {
    LISTS.take_file(path)
}

/// The list that the processor uses, which is one for all rows of the program: a processor is given a record and no
/// settings.
struct Lists {
    list: RwLock<Arc<SuffixList>>,
    file: Mutex<Option<ListFile>>,
    look_interval: Duration,
    rows: AtomicU32,
}

/// The file of a list, as it was when it was looked at last.
struct ListFile {
    path: PathBuf,
    modified: SystemTime,
    looked_at: Instant,
}

impl Lists {
    fn new(look_interval: Duration) -> Self {
        let shipped = RwLock::new(Arc::new(SuffixList::parse(SHIPPED)));
        Self { list: shipped, file: Mutex::new(None), look_interval, rows: AtomicU32::new(0) }
    }

    fn list(&self) -> Arc<SuffixList> {
        if self.rows.fetch_add(1, Ordering::Relaxed).is_multiple_of(ROWS_BETWEEN_LOOKS) {
            self.look();
        }
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_file(&self, path: &str) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (list, taken) = match path {
            "" => (SuffixList::parse(SHIPPED), None),
            path => {
                let (list, modified) = read(Path::new(path)).map_err(|error| {
                    Error::change(format!("use `dns.public_suffix_list` = `{path}`")).because(error)
                })?;
                (list, Some(ListFile { path: path.into(), modified, looked_at: Instant::now() }))
            }
        };
        *file = taken;
        self.set(list);
        Ok(())
    }

    /// Takes the list anew if its file has changed. One that cannot be read is tried again at the next look; until then
    /// the list stays.
    fn look(&self) {
        // Who is looking already will take it.
        let Ok(mut file) = self.file.try_lock() else { return };
        let Some(file) = file.as_mut().filter(|file| file.looked_at.elapsed() >= self.look_interval) else { return };
        file.looked_at = Instant::now();
        let modified = std::fs::metadata(&file.path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified != file.modified)
            && let Ok((list, modified)) = read(&file.path)
        {
            file.modified = modified;
            self.set(list);
        }
    }

    fn set(&self, list: SuffixList) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }
}

/// A list and when its file was written.
fn read(path: &Path) -> std::io::Result<(SuffixList, SystemTime)> {
    let metadata = std::fs::metadata(path)?;
    let wrong = |what: String| Err(std::io::Error::other(what));
    if metadata.len() > LIST_BYTES_MAX {
        return wrong(format!("it has {} bytes, should be {LIST_BYTES_MAX} at the most", metadata.len()));
    }
    let list = SuffixList::parse(&std::fs::read_to_string(path)?);
    match list.rules.is_empty() {
        true => wrong("it has no rules".to_owned()),
        false => Ok((list, metadata.modified()?)),
    }
}

/// The rules of a list, by the name that they are about, in lower-case ASCII.
#[derive(Debug)]
pub(super) struct SuffixList {
    rules: HashMap<Box<str>, Rule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// `example`: it is a public suffix.
    is_suffix: bool,
    /// `*.example`: each name below it is.
    below: bool,
    /// `!www.example`: it is none, though a rule above says so.
    is_exception: bool,
}

/// Parts of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suffix<'a> {
    pub(super) public: &'a str,
    /// With one label more; none where the name itself is the public suffix.
    pub(super) registrable: Option<&'a str>,
}

impl SuffixList {
    fn parse(text: &str) -> Self {
        let mut rules: HashMap<Box<str>, Rule> = HashMap::new();
        for line in text.lines() {
            let rule = line.split_whitespace().next().unwrap_or_default();
            if rule.is_empty() || rule.starts_with("//") {
                continue;
            }
            let (name, set): (_, fn(&mut Rule)) = if let Some(name) = rule.strip_prefix('!') {
                (name, |rule| rule.is_exception = true)
            } else if let Some(name) = rule.strip_prefix("*.") {
                (name, |rule| rule.below = true)
            } else {
                (rule, |rule| rule.is_suffix = true)
            };
            // What is no name in IDNA is no rule.
            if let Ok(name) = idna::domain_to_ascii(name) {
                set(rules.entry(name.into_boxed_str()).or_default());
            }
        }
        Self { rules }
    }

    /// The public suffix of a lower-case name, and what was registered below it. Where no rule fits, the last label is
    /// the suffix. None for the root.
    pub(super) fn split<'a>(&self, name: &'a str) -> Option<Suffix<'a>> {
        let mut starts = [0; LABELS_MAX];
        let mut end = name.len();
        let mut count = 0;
        // Labels of the suffix, and one for what no rule says.
        let mut suffix_labels = 1;
        for label in labels(name).rev().take(LABELS_MAX) {
            let start = end - label.len();
            starts[count] = start;
            count += 1;
            end = start.saturating_sub(1);
            let Some(rule) = self.rules.get(&name[start..]) else { continue };
            if rule.is_exception {
                suffix_labels = count - 1;
                break;
            }
            if rule.below {
                suffix_labels = suffix_labels.max(count + 1);
            }
            if rule.is_suffix {
                suffix_labels = suffix_labels.max(count);
            }
        }
        // `*.example` says nothing of `example` itself.
        let suffix_labels = suffix_labels.min(count);
        let public = &name[*starts[..count].get(suffix_labels.checked_sub(1)?)?..];
        Some(Suffix { public, registrable: starts[..count].get(suffix_labels).map(|&start| &name[start..]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str) -> (&str, Option<&str>) {
        let list = list();
        let suffix = list.split(name).unwrap();
        (suffix.public, suffix.registrable)
    }

    /// The cases of <https://github.com/publicsuffix/list/wiki/Format>.
    #[test]
    fn rules_wildcards_and_exceptions_split_a_name() {
        assert_eq!(split("com"), ("com", None));
        assert_eq!(split("example.com"), ("com", Some("example.com")));
        assert_eq!(split("a.b.example.com"), ("com", Some("example.com")));
        assert_eq!(split("www.example.co.uk"), ("co.uk", Some("example.co.uk")));
        assert_eq!(split("user.github.io"), ("github.io", Some("user.github.io")));
        assert_eq!(split("ck"), ("ck", None));
        assert_eq!(split("a.b.test.ck"), ("test.ck", Some("b.test.ck")));
        assert_eq!(split("www.ck"), ("ck", Some("www.ck")));
        assert_eq!(split("a.www.ck"), ("ck", Some("www.ck")));
        assert_eq!(split("a.city.kawasaki.jp"), ("kawasaki.jp", Some("city.kawasaki.jp")));
        assert_eq!(split("www.xn--85x722f.xn--55qx5d.cn"), ("xn--55qx5d.cn", Some("xn--85x722f.xn--55qx5d.cn")));
        assert_eq!(split("a.printer.local"), ("local", Some("printer.local")));
        assert_eq!(split(r"a\.b.example"), ("example", Some(r"a\.b.example")));
        assert_eq!(list().split("."), None);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_refused() {
        let lists = Lists::new(LOOK_INTERVAL);
        let say = |path: &str| lists.take_file(path).unwrap_err().to_string();
        assert!(say("/nowhere").starts_with("failed to use `dns.public_suffix_list` = `/nowhere`: "));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "// nothing\n").unwrap();
        assert!(say(path.to_str().unwrap()).ends_with(": it has no rules"));
        assert_eq!(lists.list().split("a.example.co.uk").unwrap().public, "co.uk", "the one that ships stays");
    }

    #[test]
    fn a_list_is_taken_anew_when_its_file_changes_and_kept_while_that_is_none() {
        let lists = Lists::new(Duration::ZERO);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let write = |text: &str, seconds| {
            std::fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let public = || {
            lists.rows.store(0, Ordering::Relaxed);
            lists.list().split("a.b.example").unwrap().public.to_owned()
        };
        assert_eq!(public(), "example");
        write("b.example\n", 1);
        lists.take_file(path.to_str().unwrap()).unwrap();
        assert_eq!(public(), "b.example");
        write("*.example\n!b.example\n", 2);
        assert_eq!(public(), "example");
        write("", 3);
        assert_eq!(public(), "example", "a file without rules is being written");
        write("a.b.example\n", 4);
        assert_eq!(public(), "a.b.example");
        lists.take_file("").unwrap();
        assert_eq!(public(), "example");
    }
}
