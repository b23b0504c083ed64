//! Drafts of the embedded store: indices made anew beside those in use. See [`contract::HotDrafts`].
//!
//! A draft is a store of its own in the folder `draft/SOURCE`. The exchange moves its indices into the place of the others.
//! What it is about to do stands in `draft/SOURCE/exchange.json` first:
//!
//! | the process dies | what the store does when it opens again |
//! | --- | --- |
//! | before `exchange.json` is there | nothing: the draft is a draft |
//! | after it | what is left of the exchange, by the names of its folders; then it opens as ever |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use async_trait::async_trait;
use contract::{Error, HotDrafts, HotStore, Remedy, Result, RowSchema, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::directory::sync_folder;
use crate::error::disk_failed;
use crate::index::{HotIndex, Unusable};
use crate::names::boundary;
use crate::recovery::DELETED;
use crate::source::{Common, HotSource, Progress};
use crate::store::TantivyStore;

/// The folder of drafts, in that of the store.
const DRAFT: &str = "draft";

/// What an exchange is about to do.
const PLAN: &str = "exchange.json";

/// The drafts that are open.
pub(crate) type Drafts = Arc<Mutex<BTreeMap<&'static str, TantivyStore>>>;

/// What an exchange does.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Indices that go without another in their place.
    gone: Vec<String>,
    /// The draft's.
    taken: Vec<String>,
    /// How far the store is then.
    checkpoint: Checkpoint,
}

/// Where a source's draft stands.
pub(crate) fn folder_of(folder: &Path, source: SourceId) -> PathBuf {
    folder.join(DRAFT).join(source.0)
}

/// Does what is left of an exchange that a crash cut short, and of the end of a draft.
pub(crate) fn finish_exchange(folder: &Path, source: SourceId) -> Result<()> {
    let doing = || format!("finish the exchange of the hot store of `{source}`");
    if let Some(plan) = Plan::load(folder, source)? {
        plan.carry_out(folder, source).map_err(|error| disk_failed(doing(), error))?;
    }
    remove_folder(&aside(&folder_of(folder, source))).map_err(|error| disk_failed(doing(), error))
}

impl Plan {
    /// The one that was saved and not carried out to its end.
    fn load(folder: &Path, source: SourceId) -> Result<Option<Self>> {
        let failed = || Error::stop(format!("read how the hot store of `{source}` is exchanged"));
        match fs::read(folder_of(folder, source).join(PLAN)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed().because(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed().because(error)),
        }
    }

    pub(crate) fn save(&self, draft: &Path) -> io::Result<()> {
        let beside = draft.join(".exchange.json");
        let file = fs::File::create(&beside)?;
        serde_json::to_writer(&file, self)?;
        file.sync_all()?;
        fs::rename(&beside, draft.join(PLAN))?;
        sync_folder(draft)
    }

    /// What is to be done, one after another; each may have been done before.
    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        let gone = self.gone.iter().map(|name| Step::Remove(name));
        let taken = self.taken.iter().map(|name| Step::Take(name));
        let cleaned = self.gone.iter().chain(&self.taken).map(|name| Step::Clean(name));
        gone.chain(taken).chain([Step::Save(&self.checkpoint), Step::End]).chain(cleaned).collect()
    }

    fn carry_out(&self, folder: &Path, source: SourceId) -> io::Result<()> {
        self.steps().iter().try_for_each(|step| step.run(folder, source))
    }
}

/// A step of an exchange.
pub(crate) enum Step<'a> {
    /// An index leaves its place.
    Remove(&'a str),
    /// One of the draft takes its place.
    Take(&'a str),
    /// The store's position becomes the draft's.
    Save(&'a Checkpoint),
    /// The draft is gone, and the plan with it.
    End,
    /// The files of an index that left its place go.
    Clean(&'a str),
}

impl Step<'_> {
    pub(crate) fn run(&self, folder: &Path, source: SourceId) -> io::Result<()> {
        let draft = folder_of(folder, source);
        match *self {
            Self::Remove(name) => set_aside(folder, name),
            Self::Take(name) if draft.join(name).is_dir() => {
                set_aside(folder, name)?;
                fs::rename(draft.join(name), folder.join(name))
            }
            Self::Take(_) => Ok(()),
            Self::Save(checkpoint) => {
                sync_folder(folder)?;
                checkpoint.save(folder, source)
            }
            Self::End => remove(&draft),
            Self::Clean(name) => remove_folder(&folder.join(format!("{name}{DELETED}"))),
        }
    }
}

/// Renames an index, if it is there, to what is deleted at the next start at the latest.
fn set_aside(folder: &Path, name: &str) -> io::Result<()> {
    let (there, aside) = (folder.join(name), folder.join(format!("{name}{DELETED}")));
    if there.is_dir() {
        remove_folder(&aside)?;
        fs::rename(there, aside)?;
    }
    Ok(())
}

/// What a draft is renamed to before it is deleted.
fn aside(draft: &Path) -> PathBuf {
    draft.with_extension("deleted")
}

/// Removes a draft: it is gone at once or not at all.
fn remove(draft: &Path) -> io::Result<()> {
    let aside = aside(draft);
    remove_folder(&aside)?;
    if draft.is_dir() {
        fs::rename(draft, &aside)?;
        draft.parent().map_or(Ok(()), sync_folder)?;
    }
    remove_folder(&aside)
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl HotSource {
    /// What puts the indices of a draft in the place of those that hold `since` and what comes later.
    pub(crate) fn plan(&self, draft: &Self, since: Option<Timestamp>) -> Result<Plan> {
        let mut checkpoint = {
            let mut drafted = draft.progress()?;
            draft.commit_all(&mut drafted)?;
            drafted.writers.abandon();
            drafted.checkpoint.clone()
        };
        let taken: Vec<String> = draft.all().iter().map(|index| index.name.clone()).collect();
        let old = self.all().into_iter().filter(|index| index.period.reaches(since)).map(|index| index.name.clone());
        let gone: Vec<String> = old.filter(|name| !taken.contains(name)).collect();
        let mut kept = Checkpoint::load(&self.common.folder, self.id()).ok().flatten().unwrap_or_default();
        kept.first.retain(|name, _| !gone.contains(name) && !taken.contains(name));
        checkpoint.first.append(&mut kept.first);
        Ok(Plan { gone, taken, checkpoint })
    }

    /// Exchanges the rows for those of a draft. After a `Retry` the next call does what is left.
    fn exchange(&self, draft: impl FnOnce() -> Result<Arc<Self>>, since: Option<Timestamp>) -> Result<()> {
        let failed = |error| disk_failed(format!("exchange the hot store of `{}`", self.id()), error);
        let mut progress = self.progress()?;
        let folder = &self.common.folder;
        let plan = match Plan::load(folder, self.id())? {
            Some(plan) => plan,
            None => {
                self.commit_all(&mut progress)?;
                let plan = self.plan(&*draft()?, since)?;
                plan.save(&folder_of(folder, self.id())).map_err(failed)?;
                plan
            }
        };
        progress.writers.abandon();
        let done = plan.carry_out(folder, self.id()).map_err(failed).and_then(|()| self.reopened(&plan));
        let indices = match done {
            Ok(indices) => indices,
            Err(error) => {
                // It is not known what is there.
                let is_for_good = error.remedy() != Remedy::Retry;
                progress.failed = is_for_good.then(|| error.to_string());
                return Err(error);
            }
        };
        *self.indices.write().unwrap_or_else(PoisonError::into_inner) = indices;
        *progress = Progress::at(plan.checkpoint);
        Ok(())
    }

    /// The indices as they are after an exchange.
    fn reopened(&self, plan: &Plan) -> Result<BTreeMap<String, Arc<HotIndex>>> {
        let mut indices = self.indices.read().unwrap_or_else(PoisonError::into_inner).clone();
        indices.retain(|name, _| !plan.gone.contains(name));
        for name in &plan.taken {
            let opened = HotIndex::open(&self.common.folder, name, self.schema).map_err(|error| match error {
                Unusable::Disk(error) => error,
                Unusable::Unborn => Error::stop(format!("open the index `{name}` of a draft: it is empty")),
                Unusable::Damaged(reason) => Error::stop(format!("open the index `{name}` of a draft")).because(reason),
            })?;
            indices.insert(name.clone(), Arc::new(opened));
        }
        Ok(indices)
    }

    /// The draft's part of the store, opened.
    pub(crate) fn open_draft(common: &Common, schema: &'static RowSchema) -> Result<Self> {
        let folder = folder_of(&common.folder, schema.source);
        let doing = || format!("make a draft of the hot store of `{}`", schema.source);
        fs::create_dir_all(&folder).map_err(|error| disk_failed(doing(), error))?;
        let common = Common { folder, ..common.clone() };
        Ok(Self::open(common, schema)?.0)
    }
}

#[async_trait]
impl HotDrafts for TantivyStore {
    async fn boundary(&self, source: SourceId, since: Timestamp) -> Result<Timestamp> {
        let found = self.source(source)?;
        let periods = found.all().into_iter().map(|index| index.period);
        Ok(boundary(periods, found.common.settings.retention_days == 0, since))
    }

    async fn draft(&self, source: SourceId) -> Result<Arc<dyn HotStore>> {
        let (drafts, store) = (self.drafts(), self.clone());
        let drafted = self.change(source, move |found| {
            let mut drafts = drafts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = drafts.get(source.0) {
                return Ok(known.clone());
            }
            let opened = HotSource::open_draft(&found.common, found.schema)?;
            Ok(drafts.entry(source.0).or_insert(store.beside(opened)).clone())
        });
        Ok(Arc::new(drafted.await?))
    }

    async fn exchange(&self, source: SourceId, since: Option<Timestamp>) -> Result<()> {
        let drafts = self.drafts();
        self.change(source, move |found| {
            let open = drafts.lock().unwrap_or_else(PoisonError::into_inner).remove(source.0);
            if open.is_none() && !folder_of(&found.common.folder, source).is_dir() {
                return Ok(());
            }
            let draft = || match open {
                Some(draft) => draft.source(source),
                None => HotSource::open_draft(&found.common, found.schema).map(Arc::new),
            };
            found.exchange(draft, since)
        })
        .await
    }

    async fn end_draft(&self, source: SourceId) -> Result<()> {
        let drafts = self.drafts();
        self.change(source, move |found| {
            drafts.lock().unwrap_or_else(PoisonError::into_inner).remove(source.0);
            let doing = || format!("remove the draft of the hot store of `{source}`");
            remove(&folder_of(&found.common.folder, source)).map_err(|error| disk_failed(doing(), error))
        })
        .await
    }
}
