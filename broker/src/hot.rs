//! Which hot store: the embedded one, or a real Elasticsearch where its hosts are set.

use std::path::Path;
use std::sync::Arc;

use contract::{Clock, HotDrafts, Result, RowSchema};
use hot_store::{ElasticsearchStore, TantivyStore};

use crate::broker::Access;
use crate::settings::Settings;

/// Opens the one that the settings name. Answers it with what was found damaged or changed, a sentence each.
pub(crate) async fn open(
    settings: &Settings,
    folder: &Path,
    schemas: &[&'static RowSchema],
    clock: Arc<dyn Clock>,
    access: Access,
) -> Result<(Arc<dyn HotDrafts>, Vec<String>)> {
    if settings.elasticsearch.is_set() {
        let store = open_elasticsearch(settings, schemas, clock, access).await?;
        let notes = store.notes().to_vec();
        return Ok((Arc::new(store), notes));
    }
    let store = match access {
        Access::Read | Access::Serve | Access::Collect => {
            TantivyStore::open_read_only(folder, schemas, settings.hot.clone(), clock)?
        }
        Access::Process | Access::Write | Access::Remake(_) => {
            TantivyStore::open(folder, schemas, settings.hot.clone(), clock)?
        }
    };
    let notes = store.notes().to_vec();
    Ok((Arc::new(store), notes))
}

/// Opens the store on the Elasticsearch that is set.
pub(crate) async fn open_elasticsearch(
    settings: &Settings,
    schemas: &[&'static RowSchema],
    clock: Arc<dyn Clock>,
    access: Access,
) -> Result<ElasticsearchStore> {
    let (of, retention_days) = (&settings.elasticsearch, settings.hot.retention_days);
    match access {
        Access::Read | Access::Serve | Access::Collect => {
            ElasticsearchStore::open_read_only(of, schemas, retention_days, clock).await
        }
        Access::Process | Access::Write | Access::Remake(_) => {
            ElasticsearchStore::open(of, schemas, retention_days, clock).await
        }
    }
}
