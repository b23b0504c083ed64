//! What stands in a watched folder, and came since what was forgotten.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use contract::Timestamp;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Files that are looked at each time; of more, those that came first.
const LISTED_MAX: usize = 16_384;

/// One file as the folder lists it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) came: Arrival,
    /// Hash of the name.
    pub(super) key: String,
    /// Hash of name, length and time of the last write.
    pub(super) look: String,
    pub(super) bytes: u64,
}

/// The order in which files come: each has its own, whatever the folder's clock ticks in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arrival {
    /// When it came into the folder or was written last, in nanoseconds since 1970: the time at which its inode changed,
    /// which nobody can set back.
    pub(super) at: i64,
    /// The time of its last write, which may be any.
    pub(super) modified: Timestamp,
    pub(super) name: String,
}

/// What need not be looked at.
#[derive(Default)]
pub(super) struct Known {
    /// Keys of files that are known by name.
    pub(super) keys: HashSet<String>,
    /// Names that were renamed in, whatever their times.
    pub(super) renamed: HashSet<String>,
    /// All others that came until then are left out.
    pub(super) older: Option<Arrival>,
}

/// A look at the folder.
pub(super) struct Listing {
    pub(super) files: Vec<Listed>,
    /// When the last one came, also of those left out; see [`Arrival::at`].
    pub(super) newest: Option<i64>,
}

/// Lists what is a file, has a name and content, and is not marked as unfinished.
pub(super) fn list(folder: &Path, known: &Known) -> io::Result<Listing> {
    let mut listing = Listing { files: Vec::new(), newest: None };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file whose name is no text, or that went meanwhile, is none of ours.
        let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), std::fs::metadata(entry.path())) else {
            continue;
        };
        let is_unfinished = name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part");
        if !metadata.is_file() || metadata.len() == 0 || is_unfinished {
            continue;
        }
        let file = Listed::of(name, &metadata);
        listing.newest = listing.newest.max(Some(file.came.at));
        let is_forgotten = known.older.as_ref().is_some_and(|older| file.came <= *older);
        if is_forgotten && !known.keys.contains(&file.key) && !known.renamed.contains(&file.came.name) {
            continue;
        }
        listing.files.push(file);
        if listing.files.len() >= 2 * LISTED_MAX {
            keep_first(&mut listing.files, known);
        }
    }
    keep_first(&mut listing.files, known);
    Ok(listing)
}

fn keep_first(files: &mut Vec<Listed>, known: &Known) {
    if files.len() > LISTED_MAX {
        let order = |file: &Listed| !known.keys.contains(&file.key);
        files.sort_unstable_by(|a, b| (order(a), &a.came).cmp(&(order(b), &b.came)));
        files.truncate(LISTED_MAX);
    }
}

impl Listed {
    fn of(name: String, metadata: &Metadata) -> Self {
        let (key, look) = (key(&name), look(&name, metadata));
        let at = metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
        let modified = metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1_000);
        let came = Arrival { at, modified: Timestamp(modified), name };
        Self { came, key, look, bytes: metadata.len() }
    }
}

/// The hash of a name.
pub(super) fn key(name: &str) -> String {
    format!("{:016x}", xxh3_64(name.as_bytes()))
}

/// See [`Listed::look`].
pub(super) fn look(name: &str, metadata: &Metadata) -> String {
    let text = format!("{name}/{}/{}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_any_size_is_listed_in_bounded_memory_and_what_came_first_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let all = 2 * LISTED_MAX + 100;
        for number in 0..all {
            std::fs::write(folder.path().join(number.to_string()), "x").unwrap();
        }
        let last = (all - 1).to_string();
        let mut known = Known { keys: [key(&last)].into(), ..Known::default() };
        let first = list(folder.path(), &known).unwrap();
        assert_eq!(first.files.len(), LISTED_MAX);
        assert_eq!(first.files[0].came.name, last, "what is known by name is always listed");
        let mut names = HashSet::new();
        let mut listed = first;
        while listed.files.len() > 1 {
            let others = listed.files.iter().filter(|file| file.came.name != last);
            known.older = others.clone().map(|file| file.came.clone()).max();
            names.extend(others.map(|file| file.came.name.clone()));
            listed = list(folder.path(), &known).unwrap();
        }
        assert_eq!(names.len(), all - 1, "all came, whatever came in the same moment");
        known.renamed = ["7".to_owned()].into();
        let listed = list(folder.path(), &known).unwrap();
        let names: HashSet<_> = listed.files.iter().map(|file| file.came.name.as_str()).collect();
        assert_eq!(names, [last.as_str(), "7"].into());
    }
}
