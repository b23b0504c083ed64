//! Public suffixes: below which names anyone can register.
//!
//! The list that ships is `public_suffix_list.dat` of <https://publicsuffix.org/list/>, whose head says its version;
//! it stands under the Mozilla Public License 2.0. How it is read: <https://github.com/publicsuffix/list/wiki/Format>.
//! All of its rules count, also those of the private section (`github.io`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use contract::{Error, Result};

use super::name::labels;

static SHIPPED: &str = include_str!("public_suffix_list.dat");

/// Bytes of a list that replaces the one that ships, which has 0.34 MB.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Labels of a rule, at the most; the longest in the list has 5.
const LABELS_MAX: usize = 16;

/// The list in use.
static LIST: OnceLock<SuffixList> = OnceLock::new();

/// The list in use: the one that ships, unless [`replace`] came first.
pub(super) fn list() -> &'static SuffixList {
    LIST.get_or_init(|| SuffixList::parse(SHIPPED, ""))
}

/// Takes the list of a file from now on; an empty path keeps the one that ships.
///
/// # Errors
/// `Change` when the file cannot be read or has no rules, or when rows were made with another list already.
pub(super) fn replace(path: &str) -> Result<()> {
    if path.is_empty() || LIST.get().is_some_and(|list| list.path == path) {
        return Ok(());
    }
    let set = || format!("set `dns.public_suffix_list` to `{path}`");
    let unreadable = |error: std::io::Error| Error::change(set()).because(error);
    let length = std::fs::metadata(Path::new(path)).map_err(unreadable)?.len();
    if length > LIST_BYTES_MAX {
        return Err(Error::change(format!("{} ({length} bytes, should be {LIST_BYTES_MAX} at the most)", set())));
    }
    let list = SuffixList::parse(&std::fs::read_to_string(path).map_err(unreadable)?, path);
    if list.rules.is_empty() {
        return Err(Error::change(format!("{} (it has no rules)", set())));
    }
    LIST.set(list).map_err(|_| Error::change(format!("{} (should be set before the first record is read)", set())))
}

/// The rules of a list, by the name that they are about, in lower-case ASCII.
#[derive(Debug)]
pub(super) struct SuffixList {
    path: String,
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
    fn parse(text: &str, path: &str) -> Self {
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
        Self { path: path.to_owned(), rules }
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
        let suffix = list().split(name).unwrap();
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
    fn a_list_that_cannot_be_read_or_comes_too_late_is_refused() {
        let say = |path: &str| replace(path).unwrap_err().to_string();
        assert!(say("/nowhere").starts_with("failed to set `dns.public_suffix_list` to `/nowhere`"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let path = path.to_str().unwrap();
        std::fs::write(path, "// nothing\n").unwrap();
        assert!(say(path).ends_with("(it has no rules)"));
        std::fs::write(path, "example\n").unwrap();
        assert_eq!(list().path, "");
        assert!(say(path).ends_with("(should be set before the first record is read)"));
        assert!(replace("").is_ok());
    }
}
