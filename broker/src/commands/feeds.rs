//! `feeds`: which news feeds are polled, and where more are found.

use std::path::PathBuf;
use std::process::ExitCode;

use acquisition::Context;
use acquisition::news::{self, ListedFeed};
use anyhow::Result;
use contract::Error;
use serde_json::json;

use crate::arguments::FeedAction;
use crate::output;
use crate::settings::Settings;

/// Runs one of the actions. `--json` prints `{"feeds": [{"url", "title", "page", "categories"}], "notes"}`.
pub(crate) async fn run(settings: &Settings, action: FeedAction, json: bool) -> Result<ExitCode> {
    let settings = &settings.acquisition.news;
    match action {
        FeedAction::List => print(&news::feeds(settings)?, &[], json, |feed| output::line(&named(feed)))?,
        FeedAction::Export { file } => {
            let opml = news::write_opml("databroker", &news::feeds(settings)?);
            match file {
                Some(file) => write(&file, &opml)?,
                None => output::line(opml.trim_end()),
            }
        }
        FeedAction::Import { location } => {
            let list = news::import(&location, settings, &Context::default()).await?;
            print(&list.feeds, &list.notes, json, |feed| output::line(&format!("    {:?},", feed.url)))?;
            if !json && !list.feeds.is_empty() {
                output::line(&format!(
                    "{} feeds. To poll them, put these lines into `[news] feeds = […]`, or the file into `[news] opml = […]`.",
                    list.feeds.len()
                ));
            }
        }
        FeedAction::Discover { url } => {
            let found = news::discover_feeds(&url, settings, &Context::default()).await?;
            let feeds: Vec<_> = found
                .into_iter()
                .map(|found| ListedFeed { url: found.url.into(), title: found.title, ..ListedFeed::default() })
                .collect();
            print(&feeds, &[], json, |feed| output::line(&named(feed)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(feeds: &[ListedFeed], notes: &[String], json: bool, line: impl Fn(&ListedFeed)) -> Result<()> {
    if json {
        let feed = |feed: &ListedFeed| json!({"url": feed.url, "title": feed.title, "page": feed.page, "categories": feed.categories});
        output::json(&json!({"feeds": feeds.iter().map(feed).collect::<Vec<_>>(), "notes": notes}))?;
        return Ok(());
    }
    feeds.iter().for_each(line);
    notes.iter().for_each(|note| output::line(note));
    if feeds.is_empty() {
        output::line("No feeds.");
    }
    Ok(())
}

fn named(feed: &ListedFeed) -> String {
    match feed.title.as_str() {
        "" => feed.url.clone(),
        title => format!("{}  {title}", feed.url),
    }
}

fn write(file: &PathBuf, opml: &str) -> contract::Result<()> {
    std::fs::write(file, opml).map_err(|cause| Error::change(format!("write `{}`", file.display())).because(cause))
}
