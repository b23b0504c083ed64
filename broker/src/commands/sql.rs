//! `sql`: a query over the cold store.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use contract::Error;
use futures::TryStreamExt;
use serving::table;

use crate::broker::{Access, Broker};
use crate::output;
use crate::running::Running;
use crate::settings::Settings;

/// Answers in the running process, whose rows are the freshest, or from what is committed.
pub(crate) async fn run(settings: &Settings, data: &Path, query: &str, json: bool) -> Result<ExitCode> {
    let rows = match Running::find(data, settings.serving.token()).await {
        Some(running) => running.sql(query).await?,
        None => {
            let broker = Broker::open(settings, data, Access::Read).await?;
            let answer = broker.engines.cold.sql(query).await?;
            let batches: Vec<_> = answer.batches.try_collect().await?;
            table::to_json_rows(&batches).context("write the answer as JSON")?
        }
    };
    if json {
        output::bytes(&rows);
    } else {
        let rows: Vec<output::Row> =
            serde_json::from_slice(&rows).map_err(|cause| Error::stop("read the answer").because(cause))?;
        output::table(&rows);
    }
    Ok(ExitCode::SUCCESS)
}
