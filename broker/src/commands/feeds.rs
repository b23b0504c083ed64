//! `feeds`: which news feeds are polled, and where more are found.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use acquisition::Context;
use acquisition::news::{self, FeedHealth, ListedFeed, Opml};
use anyhow::Result;
use contract::{Clock, Cursor, Error, SystemClock};
use serde_json::{Value, json};

use crate::arguments::FeedAction;
use crate::broker::{Access, OpenLog};
use crate::output;
use crate::settings::Settings;

/// Runs one of the actions. `--json` prints `{"feeds": [{"url", "title", "page", "categories"}], "notes"}`; for `list`
/// with `"health": {"state", "title", "answered_at", "changed_at", "failure": {"since", "at", "polls", "reason"},
/// "next_poll_at", "interval_seconds", "moved_to", "moving_to", "gone_since", "hub"}` of each feed, where `state` is `new`,
/// `answers`, `fails` or `gone`; for `export` to a file `{"file", "feeds"}`.
pub(crate) async fn run(settings: &Settings, data: &Path, action: FeedAction, json: bool) -> Result<ExitCode> {
    let (all, settings) = (settings, &settings.acquisition.news);
    match action {
        FeedAction::List => list(&news::feeds(settings)?, &cursors(all, data).await?, json)?,
        FeedAction::Export { file } => {
            let list = news::feeds(settings)?;
            let opml = news::write_opml("databroker", &list.feeds);
            match file {
                Some(file) => {
                    write(&file, &opml)?;
                    if json {
                        output::json(&json!({"file": file, "feeds": list.feeds.len()}))?;
                    }
                }
                None if json => print(&list.feeds, &list.notes, json, |_| {})?,
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

/// The cursors of feeds, by the name of their collector; empty where nothing was collected yet.
async fn cursors(settings: &Settings, data: &Path) -> Result<HashMap<String, Cursor>> {
    let log = data.join("log");
    if !log.exists() {
        return Ok(HashMap::new());
    }
    let (log, _) = OpenLog::open(settings, &log, &[], Access::Read).await?;
    let cursors = log.log().cursors("news/feed/").await?;
    Ok(cursors.into_iter().map(|(id, cursor)| (id.0, cursor)).collect())
}

fn list(list: &Opml, cursors: &HashMap<String, Cursor>, json: bool) -> Result<()> {
    let (none, now) = (Cursor::default(), SystemClock.now());
    let health =
        |feed: &ListedFeed| FeedHealth::read(cursors.get(&format!("news/feed/{}", feed.url)).unwrap_or(&none), now);
    if json {
        let feeds = list.feeds.iter().map(|feed| {
            let mut value = as_json(feed);
            value["health"] = json!(health(feed));
            value
        });
        output::json(&json!({"feeds": feeds.collect::<Vec<_>>(), "notes": list.notes}))?;
        return Ok(());
    }
    print(&list.feeds, &list.notes, false, |feed| {
        output::line(&named(feed));
        if let Some(health) = health(feed) {
            output::line(&format!("    {health}"));
        }
    })
}

fn as_json(feed: &ListedFeed) -> Value {
    json!({"url": feed.url, "title": feed.title, "page": feed.page, "categories": feed.categories})
}

fn print(feeds: &[ListedFeed], notes: &[String], json: bool, line: impl Fn(&ListedFeed)) -> Result<()> {
    if json {
        output::json(&json!({"feeds": feeds.iter().map(as_json).collect::<Vec<_>>(), "notes": notes}))?;
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
