//! A disk for tests: what is not synced may be forgotten, in part or whole, when the machine crashes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile};

/// What a crash keeps or forgets of unsynced bytes at once: small, so that frames are torn in their middle.
const PAGE_BYTES: usize = 64;

#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    /// Names as of the last `sync_folder`, and what was done to them since.
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<NameChange>,
    /// Syncs of files until one fails, and all after it.
    syncs_left: Option<usize>,
    /// Bytes of all files at which writes fail for want of space.
    bytes_max: Option<usize>,
}

#[derive(Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
}

impl SimDisk {
    /// The machine crashes and starts again: of what was not synced, `seed` chooses what is there.
    pub(crate) fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        let mut inner = self.inner();
        let kept = random.below(inner.unsynced.len() as u64 + 1) as usize;
        let changes: Vec<NameChange> = std::mem::take(&mut inner.unsynced).into_iter().take(kept).collect();
        let mut names = std::mem::take(&mut inner.durable_names);
        changes.into_iter().for_each(|change| change.apply(&mut names));
        inner.names.clone_from(&names);
        inner.durable_names = names;
        inner.files.iter_mut().for_each(|file| file.crash(&mut random));
        inner.syncs_left = None;
    }

    /// After `syncs` more syncs of files all fail, as on a disk that broke.
    pub(crate) fn fail_syncs_after(&self, syncs: usize) {
        self.inner().syncs_left = Some(syncs);
    }

    /// Lets writes fail when all files together hold this much; none lifts it.
    pub(crate) fn set_bytes_max(&self, bytes_max: Option<usize>) {
        self.inner().bytes_max = bytes_max;
    }

    /// Changes a file behind the back of whoever uses it.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let id = inner.names[path];
        let file = &mut inner.files[id];
        change(&mut file.current);
        file.durable.clone_from(&file.current);
    }

    /// The names of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.inner().names.keys().cloned().collect()
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics under this lock")
    }

    fn file(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = *self.inner().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, id) => drop(names.insert(path, id)),
            Self::Remove(path) => drop(names.remove(&path)),
        }
    }
}

impl Inner {
    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced.push(change);
    }
}

impl Content {
    fn crash(&mut self, random: &mut Random) {
        if self.current == self.durable {
            return;
        }
        let (least, most) = (self.durable.len().min(self.current.len()), self.durable.len().max(self.current.len()));
        let length = least + random.below((most - least) as u64 + 1) as usize;
        let keeps_order = random.below(2) == 0;
        let mut bytes = vec![0; length];
        for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            let at = number * PAGE_BYTES;
            let is_written = keeps_order || random.below(2) == 0;
            let from = if is_written { &self.current } else { &self.durable };
            for (place, byte) in page.iter_mut().enumerate() {
                let older = self.durable.get(at + place).copied().unwrap_or(0);
                *byte = from.get(at + place).copied().unwrap_or(older);
            }
        }
        self.current.clone_from(&bytes);
        self.durable = bytes;
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl DiskFile for SimFile {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let used: usize = inner.names.values().map(|&id| inner.files[id].current.len()).sum();
        let left = inner.bytes_max.map_or(usize::MAX, |most| most.saturating_sub(used));
        let bytes = parts.concat();
        let taken = bytes.len().min(left);
        inner.files[self.id].current.extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.inner();
        let from = position as usize;
        let bytes = inner.files[self.id].current.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.inner().files[self.id].current.truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        match &mut inner.syncs_left {
            Some(0) => return Err(io::Error::other("the disk broke")),
            Some(left) => *left -= 1,
            None => {}
        }
        let file = &mut inner.files[self.id];
        file.durable.clone_from(&file.current);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.inner().files[self.id].current.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let inside = inner.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        {
            let mut inner = self.inner();
            let id = inner.files.len();
            inner.files.push(Content::default());
            inner.change(NameChange::Add(path.to_owned(), id));
        }
        self.file(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path)
    }

    fn open_to_append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let id = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.change(NameChange::Add(to.to_owned(), id));
        inner.change(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.unsynced.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_forgets_some_of_the_rest() {
        let path = Path::new("folder/file");
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = SimDisk::default();
            let mut file = disk.create(path).unwrap();
            disk.sync_folder(Path::new("folder")).unwrap();
            file.append(&[&[1; 100]]).unwrap();
            file.sync().unwrap();
            file.append(&[&[2; 300]]).unwrap();
            disk.crash(seed);
            let content = crate::disk::read_whole(&disk, path).unwrap();
            assert_eq!(content[..100], [1; 100]);
            assert!(content[100..].iter().all(|&byte| byte == 2 || byte == 0));
            lengths.insert(content.len());
        }
        assert!(lengths.len() > 10, "{lengths:?}");
    }
}
