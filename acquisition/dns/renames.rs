//! Which files were renamed into a folder: such a file is whole.

use std::path::Path;

#[cfg(target_os = "linux")]
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// See the module. Only Linux tells; elsewhere, and on file systems that do not tell, files settle by time.
pub(super) struct Renames {
    #[cfg(target_os = "linux")]
    inotify: Inotify,
}

#[cfg(target_os = "linux")]
impl Renames {
    /// Those of one folder from now on; none where they are not told.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        inotify.add_watch(folder, AddWatchFlags::IN_MOVED_TO).ok()?;
        Some(Self { inotify })
    }

    /// Those since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(events) = self.inotify.read_events() {
            names.extend(events.into_iter().filter_map(|event| event.name?.into_string().ok()));
        }
        names
    }
}

#[cfg(not(target_os = "linux"))]
impl Renames {
    pub(super) fn of(_folder: &Path) -> Option<Self> {
        None
    }

    pub(super) fn take(&self) -> Vec<String> {
        Vec::new()
    }
}
