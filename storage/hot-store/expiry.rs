//! Days that leave the store.

use std::fs;
use std::sync::PoisonError;

use contract::{Error, Expired, Positions, Result, Timestamp, metric};

use crate::directory::sync_folder;
use crate::recovery::DELETED;
use crate::source::{HotSource, Progress};

impl HotSource {
    /// Removes the indices that lie before the first day kept and whose every row `cold` has.
    pub(crate) fn expire(&self, now: Timestamp, cold: &Positions) -> Result<Expired> {
        let mut progress = self.progress()?;
        // The marks then cover all rows that the indices hold.
        self.commit_all(&mut progress)?;
        let mut expired = Expired::default();
        if let Some(first_day) = self.first_day(now) {
            for index in self.all().into_iter().filter(|index| index.period.last < first_day) {
                let list = if cold.reaches(&index.mark()) { &mut expired.removed } else { &mut expired.waiting };
                list.push(index.name.clone());
            }
        }
        let outcome = self.delete(&mut progress, &expired.removed);
        self.settle(&mut progress, outcome)?;
        metric::HOT_INDICES.set(&[self.id().0], self.all().len() as f64);
        Ok(expired)
    }

    /// The checkpoint forgets the indices first, so that a missing one never looks like a loss; then each goes in one
    /// rename. Searches that are under way keep their files until they end.
    fn delete(&self, progress: &mut Progress, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        self.save(progress, |checkpoint| checkpoint.first.retain(|name, _| !names.contains(name)))?;
        for name in names {
            let failed = || Error::stop(format!("remove the index `{name}`"));
            progress.writers.close(name);
            self.indices.write().unwrap_or_else(PoisonError::into_inner).remove(name);
            let gone = self.common.folder.join(format!("{name}{DELETED}"));
            fs::rename(self.common.folder.join(name), &gone).map_err(|error| failed().because(error))?;
            sync_folder(&self.common.folder).map_err(|error| failed().because(error))?;
            if let Err(error) = fs::remove_dir_all(&gone) {
                // Its space is freed by the next start.
                tracing::warn!(index = %name, %error, "the files of the removed index `{name}` could not be deleted");
            }
        }
        Ok(())
    }
}
